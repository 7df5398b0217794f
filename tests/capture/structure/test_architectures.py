"""Any MoE causal language model is captured as it runs, or refused before anything is stored.

The oracle is the untouched model: hooks on its experts and layers, and its experts called one at a
time.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.layer_ranges import only_first_layers
from moedb.capture.models.loading.pretrained import load_model
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.capture.structure.blocks import MoEBlock, find_blocks, layer_kinds, n_first_layers
from moedb.capture.structure.probing.model_probe import probe
from moedb.capture.structure.taps import tapped
from moedb.capture.structure.wiring import Wiring, extended
from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.checks import check_batch
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import ModelError
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.conftest import ROOT
from tests.support.models.tiny_models import (
    FAMILIES,
    REFUSED,
    WITH_IMAGES,
    Family,
    described,
    random_model_of,
    short_texts,
    tiny_config_with_images,
    tiny_model,
)

pytestmark = pytest.mark.model

DOCS = ROOT / "docs" / "models.md"
PROMPTS = ([5, 17, 200, 43, 91, 12, 7, 250, 33], [80, 3, 144])


@dataclass
class Plain:
    """What the untouched model did with one prompt."""

    logits: torch.Tensor
    experts: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    streams: dict[int, torch.Tensor] = field(default_factory=dict)


def first_tensor(values: Any) -> torch.Tensor:
    return next(value for value in values if isinstance(value, torch.Tensor))


def plain_forward(model: Any, blocks: list[MoEBlock], prompt: list[int]) -> Plain:
    seen = Plain(torch.empty(0))
    handles = []
    for block in blocks:

        def experts_hook(module: Any, args: Any, kwargs: Any, layer: int = block.layer) -> None:
            names = ("hidden", "experts", "weights")
            seen.experts[layer] = dict(zip(names, (*args, *kwargs.values()), strict=True))

        experts = model.get_submodule(block.experts_path)
        handles.append(experts.register_forward_pre_hook(experts_hook, with_kwargs=True))
    layers = model.get_submodule(blocks[0].decoder_path.rpartition(".")[0])
    for index, layer in enumerate(layers):

        def stream_hook(module: Any, args: Any, kwargs: Any, index: int = index) -> None:
            seen.streams[index] = first_tensor((*args, *kwargs.values()))[0].clone()

        handles.append(layer.register_forward_pre_hook(stream_hook, with_kwargs=True))
    with torch.no_grad():
        seen.logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return seen


def one_at_a_time(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(token, rank, d_model): each expert's output, from the untouched experts."""
    alone = torch.eye(chosen.shape[1])
    with torch.no_grad():
        outputs = [experts(hidden, chosen, row.expand(chosen.shape)) for row in alone]
    return torch.stack([output.reshape(len(chosen), -1) for output in outputs], dim=1)


def run(model: Any, prompts: Any) -> tuple[BatchActivations, Wiring]:
    with traced(model, find_blocks(model)) as wrapped:
        return wrapped.run(prompts), wrapped.wiring


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_captured_as_it_runs(name: str) -> None:
    family = FAMILIES[name]
    model: Any = tiny_model(name, family.settings)
    modules = [path for path, _ in model.named_modules()]
    blocks = find_blocks(model)
    plain = [plain_forward(model, blocks, prompt) for prompt in PROMPTS]
    batch, wiring = run(model, PROMPTS)

    assert [path for path, _ in model.named_modules()] == modules
    again = plain_forward(model, blocks, PROMPTS[0])
    assert torch.equal(again.logits, plain[0].logits), "the model is left as it was found"
    close(batch.logits, torch.cat([each.logits for each in plain]))
    for layer, stream in plain[0].streams.items():
        close(batch.residual_pre[layer][: len(PROMPTS[0])], stream)
    for found in wiring.blocks:
        layer = found.block.layer
        here = batch.layers[layer]
        experts = model.get_submodule(found.block.experts_path)
        calls = [each.experts[layer] for each in plain]
        hidden = torch.cat([call["hidden"].reshape(-1, 32) for call in calls])
        chosen = torch.cat([call["experts"] for call in calls])
        after = found.routed_scale
        weights = torch.cat([call["weights"] for call in calls]) * after
        order = here.router_logits.gather(-1, chosen).argsort(dim=-1, descending=True, stable=True)
        assert torch.equal(here.experts, chosen.gather(-1, order))
        close(here.weights, weights.gather(-1, order))
        close(here.router_input, hidden)
        close(here.expert_outputs, one_at_a_time(experts, hidden, here.experts))
        scores = here.router_logits.gather(-1, here.experts)
        assert (scores[:, 1:] <= scores[:, :-1]).all(), "ranks are by score"
    expect(family, wiring)
    assert described(name, model, wiring) in DOCS.read_text().splitlines(), (
        "docs/models.md is stale; run: python docs/models.py"
    )


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def expect(family: Family, wiring: Wiring) -> None:
    """Hold what the probe learned against what the family's source says."""
    for found in wiring.blocks:
        assert found.rule.scoring == family.scoring
        assert found.rule.norm_topk_prob == family.normalized
        assert found.rule.scale == pytest.approx(family.scale, rel=1e-6)
        assert found.block.form == family.form
        assert found.has_shared_expert == bool(family.shared)
        assert found.has_shared_gate == (family.shared == "gated")
        assert found.shared_is_beside == (family.shared == "beside the block")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layers_tell_how_all_are_wired(name: str) -> None:
    model: Any = tiny_model(name, FAMILIES[name].settings)
    blocks = find_blocks(model)
    path = blocks[0].decoder_path.rpartition(".")[0]
    kinds = layer_kinds(list(model.get_submodule(path).children()), ())
    n_layers = n_first_layers(kinds)
    with tapped(model, blocks):
        whole = probe(model, blocks)
        with only_first_layers(model, path, n_layers):
            first = probe(model, [block for block in blocks if block.layer < n_layers])
    assert extended(first, blocks, kinds, path) == whole


@pytest.mark.parametrize(
    "name",
    ["qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "dbrx", "jamba", "lfm2_moe", "nemotron_h"],
)
def test_the_block_writes_what_the_residual_stream_gains(name: str) -> None:
    batch, _ = run(tiny_model(name, FAMILIES[name].settings), PROMPTS)
    for layer, here in batch.layers.items():
        assert here.residual_mid is not None
        close(here.residual_mid + here.block_output, batch.residual_pre[layer + 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss", "minimax_m3_vl_text", "olmoe"])
def test_in_a_short_format_the_same_is_found(name: str, dtype: torch.dtype) -> None:
    family = FAMILIES[name]
    model: Any = tiny_model(name, family.settings).to(dtype)
    batch, wiring = run(model, PROMPTS)
    check_batch(batch, wiring.blocks)
    expect(family, wiring)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_does_not_fit_is_refused(name: str) -> None:
    settings, message = REFUSED[name]
    model: Any = tiny_model(name, settings)
    modules = [path for path, _ in model.named_modules()]
    with pytest.raises(ModelError, match=message):
        run(model, PROMPTS)
    assert [path for path, _ in model.named_modules()] == modules


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "phimoe", "granitemoeshared", "minimax_m3_vl_text", "dbrx"]
)
def test_a_capture_of_a_family_is_stored_and_verified(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model(name, FAMILIES[name].settings).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder).save_pretrained(folder)
    options = CaptureOptions(model=str(folder), arrays=("all",), batch_size=4)
    planned = plan_language_capture(options, short_texts)
    run_id = capture(planned, tmp_path / "store").run_id
    stored = read_run(tmp_path / "store", run_id)
    layers = stored.manifest.layers
    assert verify_run(stored).n_layers_summed == len(layers) > 0
    assert {row["scoring"] for row in layers} == {FAMILIES[name].scoring}
    assert {row["has_shared_expert"] for row in layers} == {int(bool(FAMILIES[name].shared))}


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_a_model_of_text_and_images_without_padding_is_captured(name: str, tmp_path: Path) -> None:
    """Its forward puts the id of padding where an image is, and null is none."""
    folder = tmp_path / "model"
    model: Any = random_model_of(tiny_config_with_images(name))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder).save_pretrained(folder)
    options = CaptureOptions(model=str(folder), arrays=("all",), batch_size=4)
    run_id = capture(plan_language_capture(options, short_texts), tmp_path / "store").run_id
    stored = read_run(tmp_path / "store", run_id)
    assert verify_run(stored).n_layers_summed == len(stored.manifest.layers) > 0
    # The text's own model, with the same weights, takes no images and needs no padding.
    text: Any = tiny_model(WITH_IMAGES[name][0], FAMILIES[WITH_IMAGES[name][0]].settings)
    weights = {
        key.replace("language_model.", ""): value for key, value in model.state_dict().items()
    }
    text.load_state_dict(weights, strict=False)
    assert {*text.state_dict()} <= {*weights}
    loaded = load_model(find_checkpoint(str(folder)), "float32", "cpu")
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        expected = text(input_ids=ids, use_cache=False).logits
        close(loaded(input_ids=ids, use_cache=False).logits, expected)


def test_the_docs_list_every_family() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    listed = [row.split("`")[1] for row in rows]
    assert listed == [*FAMILIES, *REFUSED], "docs/models.md is stale; run: python docs/models.py"


class Expert(nn.Module):
    """One expert of a stacked module, on its own, as quantized checkpoints have them."""

    def __init__(self, stacked: Any, index: int) -> None:
        super().__init__()
        d_hidden, d_model = stacked.down_proj.shape[2], stacked.down_proj.shape[1]
        self.gate_up = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.down = nn.Linear(d_hidden, d_model, bias=False)
        self.gate_up.weight = nn.Parameter(stacked.gate_up_proj[index])
        self.down.weight = nn.Parameter(stacked.down_proj[index])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(nn.functional.silu(gate) * up)  # type: ignore[no-any-return]


class LoopingBlock(nn.Module):
    """A block that loops over its experts; it chooses them itself, or its router does."""

    def __init__(self, block: Any, own_choice: bool) -> None:
        super().__init__()
        self.top_k = block.gate.top_k
        self.gate = nn.Linear(32, 8, bias=False) if own_choice else block.gate
        if own_choice:
            self.gate.weight = block.gate.weight
        self.shared_expert = getattr(block, "shared_expert", None)
        self.shared_expert_gate = getattr(block, "shared_expert_gate", None)
        self.experts = nn.ModuleList(Expert(block.experts, index) for index in range(8))
        # Some go over their experts once for each rank.
        each = range(self.top_k)
        self.passes = [[*each]] if own_choice else [[rank] for rank in each]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x = hidden_states.view(-1, hidden_states.shape[-1])
        routing = self.gate(x)
        if isinstance(routing, torch.Tensor):
            weights, chosen = routing.softmax(dim=-1).topk(self.top_k, dim=-1)
        else:
            _, weights, chosen = routing
        total = torch.zeros_like(x)
        for ranks in self.passes:
            for index, expert in enumerate(self.experts):
                rank, token = torch.where(chosen.T[ranks].eq(index))
                weight = weights[:, ranks][token, rank, None]
                total.index_add_(0, token, expert(x[token]) * weight)
        if self.shared_expert is not None:
            total = total + self.shared_expert_gate(x).sigmoid() * self.shared_expert(x)
        return total.view_as(hidden_states)


def with_lists(name: str, own_choice: bool) -> Any:
    model: Any = tiny_model(name, {})
    for layer in model.model.layers:
        layer.mlp = LoopingBlock(layer.mlp, own_choice)
    return model.eval()


@pytest.mark.parametrize("own_choice", [False, True])
@pytest.mark.parametrize("name", ["qwen2_moe", "olmoe"])
def test_a_list_of_experts_is_captured_as_stacked_ones_are(name: str, own_choice: bool) -> None:
    expected, _ = run(tiny_model(name, {}), PROMPTS)
    model = with_lists(name, own_choice)
    modules = [path for path, _ in model.named_modules()]
    batch, wiring = run(model, PROMPTS)
    assert [path for path, _ in model.named_modules()] == modules
    assert not any(module._forward_hooks for module in model.modules())
    close(batch.logits, expected.logits)
    for found in wiring.blocks:
        assert found.block.form == "list" and found.block.d_expert in (16, 48)
        here, there = batch.layers[found.block.layer], expected.layers[found.block.layer]
        assert torch.equal(here.experts, there.experts)
        for value in ("weights", "expert_outputs", "router_logits", "block_output", "router_input"):
            close(getattr(here, value), getattr(there, value))


def test_an_edit_of_the_tapped_outputs_reaches_the_model() -> None:
    import nnsight

    logits = []
    for model in (
        tiny_model("qwen2_moe", {}),
        with_lists("qwen2_moe", True),
        with_lists("qwen2_moe", False),
    ):
        blocks = find_blocks(model)
        with tapped(model, blocks):
            tap = "mlp" if blocks[0].form == "list" else "mlp.experts"
            wrapped = nnsight.NNsight(model)
            envoy = wrapped.get(f"model.layers.1.{tap}.moedb_outputs")
            with torch.no_grad(), wrapped.trace(input_ids=torch.tensor([PROMPTS[0]])):
                # An edit that is the same whichever order the tap has the experts in.
                envoy.output = envoy.output * (envoy.output > 0)
                logits.append(nnsight.save(wrapped.output.logits[0]))
    untouched = plain_forward(model, find_blocks(model), PROMPTS[0]).logits
    assert (logits[0] - untouched).abs().max() > 0.1
    close(logits[1], logits[0])
    close(logits[2], logits[0])


def test_a_block_whose_output_does_not_add_up_is_refused() -> None:
    model: Any = tiny_model("mixtral", {})
    handle = model.model.layers[1].mlp.register_forward_hook(lambda _, args, out: out + out.abs())
    with pytest.raises(ModelError, match=r"model.layers.1.mlp: expected its output to be"):
        run(model, PROMPTS)
    handle.remove()


def test_neurons_of_a_list_of_experts_are_refused() -> None:
    model = with_lists("olmoe", True)
    with (
        pytest.raises(ModelError, match=r"mlp.experts: expert_neurons can be read only"),
        traced(model, find_blocks(model), neurons=(0,)),
    ):
        pass
