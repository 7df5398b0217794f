"""Models larger than memory: the same values from weights that come layer by layer."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
)

from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.layer_ranges import only_first_layers, skipping
from moedb.capture.models.loading.pretrained import load_model
from moedb.capture.models.opening import opened_model, weight_bytes
from moedb.capture.models.placement import Placement
from moedb.capture.models.streaming.deferred import Deferred
from moedb.capture.models.streaming.streamed_model import streamed_model
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.activations import LayerActivations
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import ModelError, UsageError
from tests.support.contents import run_contents

pytestmark = pytest.mark.model

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen2_moe() -> PretrainedConfig:
    return Qwen2MoeConfig(
        **SIZES,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        num_experts=6,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
    )


def mixtral() -> PretrainedConfig:
    return MixtralConfig(**SIZES, num_local_experts=4, tie_word_embeddings=True)


def gpt_oss() -> PretrainedConfig:
    return GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, head_dim=8)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[PretrainedConfig], Path]:
    def save(config: PretrainedConfig) -> Path:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
        return tmp_path / "model"

    return save


def n_bytes(model: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)


@pytest.mark.parametrize("make", [qwen2_moe, mixtral, gpt_oss])
@pytest.mark.parametrize("share", [0.75, 2.0])
def test_logits_are_those_of_the_loaded_model(
    make: Callable[[], PretrainedConfig],
    share: float,
    saved: Callable[[PretrainedConfig], Path],
) -> None:
    checkpoint = local_checkpoint(saved(make()))
    loaded = load_model(checkpoint, "float32", "cpu")
    ids = torch.arange(40).reshape(2, 20)
    limit = int(share * n_bytes(loaded))
    seen = []
    with torch.no_grad(), streamed_model(checkpoint, "float32", "cpu", limit) as streamed:
        for layer in streamed.model.layers:
            layer.register_forward_hook(lambda *_: seen.append(n_bytes(streamed)))
        for _ in range(2):  # the second time the first layers may still be there
            assert torch.equal(
                streamed(ids, use_cache=False).logits, loaded(ids, use_cache=False).logits
            )
    assert max(seen) <= limit
    hooks = [h for m in streamed.modules() for h in m._forward_pre_hooks.values()]
    assert hooks == []


def test_a_streamed_capture_is_a_capture(random_model: Path, tmp_path: Path) -> None:
    whole, least = 0, 0
    checkpoint = local_checkpoint(random_model)
    whole = weight_bytes(checkpoint, "float32")
    with (
        pytest.raises(UsageError, match="for two layers and what is not in a layer"),
        streamed_model(checkpoint, "float32", "cpu", least),
    ):
        pass

    def run(store: str, max_bytes: int | None = None, device_map: str | None = None) -> str:
        options = CaptureOptions(
            str(random_model), batch_size=8, max_bytes=max_bytes, device_map=device_map
        )
        planned = plan_qwen_ioi(options, n=6, seed=0)
        capture(planned, tmp_path / store)
        return planned.run_id

    run_id = run("loaded")
    rows = run_contents(tmp_path / "loaded", run_id)
    # How it was run does not change what it is.
    assert run("streamed", max_bytes=whole - 1) == run("spread", device_map="auto") == run_id
    assert run_contents(tmp_path / "streamed", run_id) == rows
    assert run_contents(tmp_path / "spread", run_id) == rows


def test_a_model_of_one_kind_of_layer_is_captured_with_two_in_memory(
    saved: Callable[[PretrainedConfig], Path],
) -> None:
    checkpoint = local_checkpoint(saved(mixtral()))
    loaded: Any = load_model(checkpoint, "float32", "cpu")
    with traced(loaded, find_blocks(loaded)) as wrapped:
        expected = wrapped.run([[5, 17, 43], [9, 30]])
    layers = [n_bytes(layer) for layer in loaded.model.layers]
    least = n_bytes(loaded) - sum(layers) + 2 * max(layers)
    with (
        streamed_model(checkpoint, "float32", "cpu", least) as model,
        traced(model, find_blocks(model)) as wrapped,
    ):
        found = wrapped.run([[5, 17, 43], [9, 30]])
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.layers[4].expert_outputs, expected.layers[4].expert_outputs)


def test_a_batch_is_handed_on_layer_by_layer(random_model: Path) -> None:
    """Kept until the end, the values of all layers of a batch could be larger than the model."""
    seen: list[weakref.ref[torch.Tensor]] = []

    class Watching:
        def stream(self, layer: int, residual: torch.Tensor) -> None:
            pass

        def layer(self, layer: int, activations: LayerActivations) -> None:
            alive = [tensor for reference in seen if (tensor := reference()) is not None]
            assert alive == []
            seen.append(weakref.ref(activations.expert_outputs))

    model = load_model(local_checkpoint(random_model), "float32", "cpu")
    with traced(model, find_blocks(model)) as wrapped:
        wrapped.read([[5, 17, 43], [9, 30]], Watching())
    assert len(seen) == 2


def test_layers_are_streamed_or_spread_but_not_both() -> None:
    with pytest.raises(UsageError, match="--device-map auto and --max-memory: only one"):
        CaptureOptions("qwen-moe-mini", max_bytes=1, device_map="auto")


def test_what_fits_is_loaded_whole(random_model: Path) -> None:
    checkpoint = local_checkpoint(random_model)
    whole = weight_bytes(checkpoint, "float32")
    with opened_model(checkpoint, Placement("float32", "cpu", whole)) as model:
        assert n_bytes(model) == whole
    with opened_model(checkpoint, Placement("float32", "cpu", whole - 1)) as model:
        assert n_bytes(model) < whole


def test_a_missing_tensor_is_named(saved: Callable[[PretrainedConfig], Path]) -> None:
    folder = saved(qwen2_moe())
    for file in sorted(folder.glob("*.safetensors")):
        tensors = load_file(file)
        kept = {
            name: tensor
            for name, tensor in tensors.items()
            if "layers.3.self_attn.o_proj" not in name
        }
        if len(kept) < len(tensors):
            save_file(kept, file, metadata={"format": "pt"})
    checkpoint = local_checkpoint(folder)
    with (
        pytest.raises(ModelError, match=r"layer 3, such as self_attn\.o_proj"),
        streamed_model(checkpoint, "float32", "cpu", 10**9),
    ):
        pass


def test_no_layer_runs_with_another_ones_weights(
    saved: Callable[[PretrainedConfig], Path],
) -> None:
    """Layers share memory: whatever the order in which they run, each has its own weights."""
    checkpoint = local_checkpoint(saved(mixtral()))
    loaded: Any = load_model(checkpoint, "float32", "cpu")
    right = [layer.state_dict() for layer in loaded.model.layers]
    layers = [n_bytes(layer) for layer in loaded.model.layers]
    least = n_bytes(loaded) - sum(layers) + 2 * max(layers)
    seen = []

    def check(index: int) -> Any:
        def before(module: torch.nn.Module, *_: Any) -> None:
            for name, value in module.state_dict().items():
                assert torch.equal(value, right[index][name])
            seen.append(index)

        return before

    ids = torch.arange(8)[None]
    with torch.no_grad(), streamed_model(checkpoint, "float32", "cpu", least) as model:
        for index, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(check(index))
        model(ids, use_cache=False)
        with only_first_layers(model, "model.layers", 2):
            model(ids, use_cache=False)
        for start in (3, 4, 0):
            with skipping(model, "model.layers", start):
                model(ids, use_cache=False)
        assert n_bytes(model) <= least
    assert seen == [0, 1, 2, 3, 4, 0, 1, 3, 4, 4, 0, 1, 2, 3, 4]


def test_what_a_rule_computes_of_values_is_read_all_the_same(
    saved: Callable[[PretrainedConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the conversion cannot be deferred, it runs each time a layer is read."""

    dispatch = Deferred.__torch_dispatch__

    def choosy(_: Any, function: Any, *rest: Any) -> Any:
        if function is torch.ops.aten.stack.default:
            raise NotImplementedError
        return dispatch(function, *rest)

    checkpoint = local_checkpoint(saved(qwen2_moe()))
    loaded = load_model(checkpoint, "float32", "cpu")
    monkeypatch.setattr(Deferred, "__torch_dispatch__", classmethod(choosy))
    ids = torch.arange(40).reshape(2, 20)
    limit = int(0.75 * n_bytes(loaded))
    with torch.no_grad(), streamed_model(checkpoint, "float32", "cpu", limit) as streamed:
        for _ in range(2):
            assert torch.equal(
                streamed(ids, use_cache=False).logits, loaded(ids, use_cache=False).logits
            )
