"""A dense model is captured as it runs: each feed-forward layer as one expert of every token.

The oracle is the untouched model with plain forward hooks.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import moedb
from moedb.capture.interventions.parent_run import open_parent
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.structure.dense_blocks import find_layers
from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.checks import check_layer
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import CheckError, ModelError, UsageError
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.support.models.tiny_models import tiny_model

pytestmark = pytest.mark.model

PROMPTS = ([5, 17, 200, 43, 91], [80, 3, 144, 9, 12])
SIZES: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "bos_token_id": None,
    "eos_token_id": 0,
}
GPT2 = GPT2Config(
    vocab_size=4096, n_embd=32, n_layer=3, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=0
)


def random(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make().eval()


# For each model where its layers, its feed-forward layer, the norm before it and its down
# projection are, and how wide its hidden layer is.
MODELS: dict[str, tuple[Callable[[], Any], str, str, str, int]] = {
    "llama": (
        lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
        "model.layers",
        "post_attention_layernorm",
        "down_proj",
        48,
    ),
    "qwen2": (
        lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
        "model.layers",
        "post_attention_layernorm",
        "down_proj",
        48,
    ),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2), "transformer.h", "ln_2", "c_proj", 128),
}


def hooked(model: Any, layers: str, norm: str, down: str, ids: Any) -> dict[tuple[str, int], Any]:
    """What hooks on the untouched model see of a batch without padding, token by token."""
    seen: dict[tuple[str, int], Any] = {}
    handles = []

    def keep(name: str, index: int, *, reads: bool) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            value = args[0] if reads else output
            seen[name, index] = value.flatten(0, 1).clone()

        return hook

    for index, layer in enumerate(model.get_submodule(layers)):
        before = getattr(layer, norm)
        handles += [
            layer.register_forward_hook(keep("residual_pre", index, reads=True)),
            before.register_forward_hook(keep("residual_mid", index, reads=True)),
            layer.mlp.register_forward_hook(keep("input", index, reads=True)),
            layer.mlp.register_forward_hook(keep("output", index, reads=False)),
            getattr(layer.mlp, down).register_forward_hook(keep("neurons", index, reads=True)),
        ]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids), use_cache=False).logits
    for handle in handles:
        handle.remove()
    return {**seen, ("logits", 0): logits.flatten(0, 1)}


def run_dense(model: Any) -> BatchActivations:
    blocks = find_layers(model, dense=True)
    with traced(model, blocks, neurons=[block.layer for block in blocks]) as wrapped:
        return wrapped.run(PROMPTS)


@pytest.mark.parametrize("name", MODELS)
def test_a_dense_model_is_captured_bit_for_bit(name: str) -> None:
    make, layers, norm, down, width = MODELS[name]
    model = random(make)
    seen = hooked(model, layers, norm, down, PROMPTS)
    batch = run_dense(model)
    assert torch.equal(batch.logits, seen["logits", 0])
    assert sorted(batch.layers) == [0, 1, 2]
    for index, found in batch.layers.items():
        assert torch.equal(batch.residual_pre[index], seen["residual_pre", index])
        assert found.residual_mid is not None and found.expert_neurons is not None
        assert torch.equal(found.residual_mid, seen["residual_mid", index])
        assert torch.equal(found.router_input, seen["input", index])
        assert torch.equal(found.expert_outputs[:, 0], seen["output", index])
        assert torch.equal(found.block_output, seen["output", index])
        assert torch.equal(found.expert_neurons[:, 0], seen["neurons", index])
        assert found.expert_neurons.shape == (10, 1, width)
        assert found.experts.tolist() == [[0]] * 10 and found.weights.tolist() == [[1.0]] * 10
    again = hooked(model, layers, norm, down, PROMPTS)
    assert torch.equal(again["logits", 0], seen["logits", 0]), "the model is left as it was"


def test_the_parts_of_every_batch_must_add_up() -> None:
    model = random(MODELS["llama"][0])
    blocks = find_layers(model, dense=True)
    with traced(model, blocks) as wrapped:
        layer = wrapped.run(PROMPTS).layers[1]
        check_layer(layer, wrapped.wiring.blocks[1])
        off = layer.expert_outputs.clone()
        off[3, 0, 7] += 0.5
        with pytest.raises(CheckError, match=r"layer 1: .* miss the output of model.layers.1.mlp"):
            check_layer(replace(layer, expert_outputs=off), wrapped.wiring.blocks[1])


def test_a_model_of_the_other_kind_is_refused() -> None:
    dense = random(MODELS["llama"][0])
    with pytest.raises(ModelError, match="found a dense model") as refused:
        find_blocks(dense)
    assert "--dense" in str(refused.value.hint)
    mixture: Any = tiny_model("deepseek_v3", {})
    with pytest.raises(ModelError, match=r"--dense: DeepseekV3ForCausalLM has MoE blocks") as other:
        find_layers(mixture, dense=True)
    assert "leave --dense out" in str(other.value.hint)


def test_a_layer_that_is_no_module_is_refused() -> None:
    config = OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4
    )
    with pytest.raises(ModelError, match="expected a feed-forward layer in each decoder block"):
        find_layers(OPTForCausalLM(config), dense=True)


def test_a_layer_whose_output_is_more_than_its_down_projection_is_refused() -> None:
    model = random(MODELS["llama"][0])
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: 2 * output)
    with (
        pytest.raises(ModelError, match=r"layers.1.mlp: expected its output to be that of"),
        traced(model, find_layers(model, dense=True)),
    ):
        pass


@pytest.fixture(scope="module")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "tiny-qwen2"
    random(MODELS["qwen2"][0]).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_dense_run_stands_beside_others(dense_folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = moedb.capture_ioi(
        store,
        n=6,
        model=dense_folder,
        dense=True,
        batch_size=1,
        arrays=["all", "expert_neurons"],
    )
    moedb.capture_ioi(store, n=6, arrays=["none"])
    verify_run(read_run(store, run))
    db = moedb.open(store)
    layers = db.sql(
        "select distinct n_experts, top_k, d_expert, has_shared_expert, scoring "
        f"from moe_layers where run_id = '{run}'"
    ).fetchall()
    assert layers == [(1, 1, 48, 0, "none")]
    n_tokens = db.sql(f"select count(*) from tokens where run_id = '{run}'").fetchall()[0][0]
    routing = db.sql(
        "select layer, count(*), min(expert), max(expert), min(weight), max(weight), max(rank), "
        f"min(output_norm) > 0 from routing where run_id = '{run}' group by layer order by layer"
    ).fetchall()
    assert routing == [(layer, n_tokens, 0, 0, 1.0, 1.0, 0, True) for layer in range(3)]
    stats = db.sql(
        "select distinct entropy, margin, logsumexp, topk_mass, shared_gate from router_stats "
        f"where run_id = '{run}'"
    ).fetchall()
    assert stats == [(0.0, 1.0, 0.0, 1.0, None)]
    assert str(stats[0][0]) == "0.0"
    kept = read_run(store, run).manifest.arrays
    assert "router_logits" not in kept and "shared_outputs" not in kept
    rows = db.sql(
        "select example_id, position, token_id, array_row from tokens "
        f"where run_id = '{run}' order by token_idx"
    ).fetchall()
    ids = [row[2] for row in rows if row[0] == 0]
    model = Qwen2ForCausalLM.from_pretrained(dense_folder).eval()
    seen = hooked(model, "model.layers", "post_attention_layernorm", "down_proj", [ids])
    neurons = np.asarray(db.array(run, "expert_neurons", layer=2)[: len(ids)])
    assert np.array_equal(neurons[:, 0], seen["neurons", 2].numpy())
    assert db.query("load-balance", run=run).fetchall()
    by_role = db.query("routing-by-class", run=run, key="role").df()
    assert set(by_role["expert"]) == {0} and set(by_role["layer"]) == {0, 1, 2}
    with pytest.raises(UsageError, match=r"is of a dense model \(--dense\); interventions"):
        open_parent(store, run)


def test_a_dense_model_that_is_loaded_is_captured(dense_folder: Path, tmp_path: Path) -> None:
    model: Any = Qwen2ForCausalLM.from_pretrained(dense_folder)
    tokenizer = AutoTokenizer.from_pretrained(dense_folder)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "A word and another word."}\n')
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer}
    with pytest.raises(ModelError, match="found a dense model"):
        moedb.capture_text(texts, tmp_path / "store", **given)
    run = moedb.capture_text(texts, tmp_path / "store", dense=True, **given)
    assert run == moedb.capture_text(texts, tmp_path / "store", dense=True, model=dense_folder)


def test_a_dense_model_is_streamed_to_the_same_bits(dense_folder: Path, tmp_path: Path) -> None:
    found = []
    for memory in (None, 0.00112):
        store = tmp_path / str(memory)
        run = moedb.capture_ioi(
            store, n=2, model=dense_folder, dense=True, max_memory=memory, arrays=["expert_neurons"]
        )
        found.append(np.asarray(moedb.open(store).array(run, "expert_neurons", layer=2)[:20]))
    assert np.array_equal(*found)
