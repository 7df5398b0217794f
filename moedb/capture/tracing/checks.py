"""What must hold of every batch, or the capture stops: the model's own arithmetic."""

from typing import TYPE_CHECKING

import torch

from moedb.capture.structure.wiring import BlockWiring
from moedb.errors import CheckError

if TYPE_CHECKING:
    from moedb.capture.tracing.activations import BatchActivations, LayerActivations


def check_batch(batch: "BatchActivations", wirings: tuple[BlockWiring, ...]) -> None:
    """Check every MoE layer of a batch.

    Raises
    ------
    CheckError
        If ranks repeat an expert, an expert is out of range, a weight is not what the router's
        rule gives, or the expert outputs do not add up to the block's output. The message names
        the layer and the size of the gap.
    """
    for wiring in wirings:
        check_layer(batch.layers[wiring.block.layer], wiring)


def check_layer(layer: "LayerActivations", wiring: BlockWiring) -> None:
    """Check one MoE layer of a batch, as :func:`check_batch` does."""
    _check_experts(wiring, layer)
    _check_weights(wiring, layer)
    _check_sum(wiring, layer)


def _check_experts(wiring: BlockWiring, layer: "LayerActivations") -> None:
    block = wiring.block
    if layer.experts.shape[-1] != block.top_k:
        raise CheckError(
            f"layer {block.layer}: expected {block.top_k} experts for a token, "
            f"got {layer.experts.shape[-1]}"
        )
    smallest, largest = int(layer.experts.min()), int(layer.experts.max())
    if smallest < 0 or largest >= block.n_experts:
        raise CheckError(
            f"layer {block.layer}: experts from {smallest} to {largest}, "
            f"expected 0 to {block.n_experts - 1}"
        )
    ordered = layer.experts.sort(dim=-1).values
    repeated = int((ordered[:, 1:] == ordered[:, :-1]).any(dim=-1).sum())
    if repeated:
        raise CheckError(f"layer {block.layer}: {repeated} tokens go to one expert twice")


def _check_weights(wiring: BlockWiring, layer: "LayerActivations") -> None:
    if wiring.rule.scoring == "other":
        return
    expected = wiring.rule.weights(layer.router_logits, layer.experts)
    tolerance = wiring.rule.tolerance(layer.weights.dtype, layer.block_output.dtype)
    gap = (expected - layer.weights.float()).abs() / expected.clamp_min(1e-30)
    worst = float(gap.max())
    if not worst <= tolerance:
        raise CheckError(
            f"layer {wiring.block.layer}: a weight differs from what the router's rule gives "
            f"({wiring.rule.scoring}) by a factor of 1 + {worst:.3g}, allowed are {tolerance:.3g}"
        )


def sum_gap(layer: "LayerActivations") -> tuple[float, float]:
    """How far the parts of the block's output are from adding up to it.

    Returns
    -------
    gap, allowed
        The largest difference, and what rounding in the model's number format explains there:
        k + 3 roundings of the sum of the parts' magnitudes, in the model's sum and in this one.
    """
    outputs, weights = layer.expert_outputs.float(), layer.weights.float().unsqueeze(1)
    total, magnitude = (weights @ outputs).squeeze(1), (weights.abs() @ outputs.abs()).squeeze(1)
    if layer.shared_outputs is not None and layer.shared_gate is not None:
        shared = layer.shared_outputs.float() * layer.shared_gate.float().unsqueeze(-1)
        total, magnitude = total + shared, magnitude + shared.abs()
    gap = (total - layer.block_output.float()).abs()
    n_roundings = 2 * (layer.experts.shape[-1] + 3)
    allowed = n_roundings * torch.finfo(layer.block_output.dtype).eps * magnitude + 1e-30
    # nan compares false with everything, so it must win here.
    excess = (gap / allowed).nan_to_num(nan=torch.inf)
    worst = int(excess.argmax())
    return float(gap.flatten()[worst]), float(allowed.flatten()[worst])


def _check_sum(wiring: BlockWiring, layer: "LayerActivations") -> None:
    gap, allowed = sum_gap(layer)
    if not gap <= allowed:
        raise CheckError(
            f"layer {wiring.block.layer}: the experts' outputs times their weights (and the shared "
            f"expert) miss the output of {wiring.block.path} by {gap:.3g}; rounding explains "
            f"{allowed:.3g}"
        )
