"""The checks on a batch: what a model does passes, any change to it does not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from moedb.capture.structure.blocks import find_blocks
from moedb.capture.structure.router_rule import RouterRule
from moedb.capture.tracing.activations import BatchActivations, LayerActivations
from moedb.capture.tracing.checks import check_batch, sum_gap
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import CheckError

pytestmark = pytest.mark.model


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def ran(request: pytest.FixtureRequest, random_model: Path) -> tuple[BatchActivations, Any]:
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=getattr(torch, request.param))
    with traced(model.eval(), find_blocks(model)) as wrapped:
        return wrapped.run([[5, 6, 7, 8], [9, 10]]), wrapped.wiring.blocks


def changed(batch: BatchActivations, **values: torch.Tensor) -> BatchActivations:
    layer = dataclasses.replace(batch.layers[2], **values)
    return dataclasses.replace(batch, layers={**batch.layers, 2: layer})


def test_what_a_model_does_passes_with_room(ran: tuple[BatchActivations, Any]) -> None:
    batch, wirings = ran
    check_batch(batch, wirings)
    assert batch.logits.shape[0] == 6
    for layer in batch.layers.values():
        gap, allowed = sum_gap(layer)
        assert gap < allowed


def repeat(layer: LayerActivations) -> dict[str, torch.Tensor]:
    experts = layer.experts.clone()
    experts[3, 1] = experts[3, 0]
    return {"experts": experts}


def out_of_range(layer: LayerActivations) -> dict[str, torch.Tensor]:
    return {"experts": layer.experts + 12}


def heavier(layer: LayerActivations) -> dict[str, torch.Tensor]:
    return {"weights": layer.weights * 1.1}


def flipped(layer: LayerActivations) -> dict[str, torch.Tensor]:
    outputs = layer.expert_outputs.clone()
    outputs[2, 1] *= -1
    return {"expert_outputs": outputs}


def not_a_number(layer: LayerActivations) -> dict[str, torch.Tensor]:
    outputs = layer.expert_outputs.clone()
    outputs[0, 0, 0] = torch.nan
    return {"expert_outputs": outputs}


def no_shared(layer: LayerActivations) -> dict[str, torch.Tensor]:
    assert layer.shared_gate is not None
    return {"shared_gate": torch.zeros_like(layer.shared_gate)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (repeat, "go to one expert twice"),
        (out_of_range, "expected 0 to 11"),
        (heavier, "a weight differs"),
        (flipped, "miss the output of model.layers.2.mlp"),
        (not_a_number, "miss the output"),
        (no_shared, "miss the output"),
    ],
)
def test_any_change_is_found(
    ran: tuple[BatchActivations, Any],
    change: Callable[[LayerActivations], dict[str, torch.Tensor]],
    message: str,
) -> None:
    batch, wirings = ran
    with pytest.raises(CheckError, match=message) as caught:
        check_batch(changed(batch, **change(batch.layers[2])), wirings)
    assert "layer 2" in str(caught.value)


def test_the_probe_learns_the_rule_and_the_order(random_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(random_model).eval()
    blocks = find_blocks(model)
    assert [(b.layer, b.n_experts, b.top_k, b.d_expert) for b in blocks] == [
        (1, 12, 3, 16),
        (2, 12, 3, 16),
    ]
    with traced(model, blocks) as wrapped:
        wiring = wrapped.wiring
    assert [b.rule for b in wiring.blocks] == [RouterRule("softmax", True)] * 2
    assert wiring.n_layers == 3 and wiring.d_model == 32
    here = [(read.role, read.path.removeprefix("model.layers.1.")) for read in wiring.reads
            if read.layer == 1]  # fmt: skip
    assert here == [
        ("residual_pre", "model.layers.1"),
        ("residual_mid", "post_attention_layernorm"),
        ("router_input", "mlp"),
        ("shared_outputs", "mlp.shared_expert"),
        ("router_logits", "mlp.gate"),
        ("experts", "mlp.experts"),
        ("weights", "mlp.experts"),
        ("expert_outputs", "mlp.experts.moedb_outputs"),
        ("shared_gate", "mlp.shared_expert_gate"),
        ("block_output", "mlp"),
    ]
    assert wiring.reads[-1].role == "logits"
    assert wiring.reads[-2].path == "model.norm"


def test_ranks_are_by_score_whatever_order_the_router_used(random_model: Path) -> None:
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter

    model = AutoModelForCausalLM.from_pretrained(random_model).eval()
    real = Qwen2MoeTopKRouter.forward
    with traced(model, find_blocks(model)) as wrapped:
        expected = wrapped.run([[5, 6, 7]]).layers[1]

    def reversed_order(self: Any, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, weights, experts = real(self, hidden_states)
        return logits, weights.flip(-1), experts.flip(-1)

    Qwen2MoeTopKRouter.forward = reversed_order
    try:
        with traced(model, find_blocks(model)) as wrapped:
            found = wrapped.run([[5, 6, 7]]).layers[1]
    finally:
        Qwen2MoeTopKRouter.forward = real
    assert torch.equal(found.experts, expected.experts)
    assert torch.equal(found.weights, expected.weights)
    torch.testing.assert_close(found.expert_outputs, expected.expert_outputs)
