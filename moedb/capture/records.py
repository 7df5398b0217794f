"""What is stored of a batch: activations reduced to numpy, in the batch's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.lens import LensRecords
from moedb.capture.trace import BatchActivations, LayerActivations
from moedb.store.arrays import Activations, ArrayKey


def to_numpy(values: torch.Tensor) -> NDArray[Any]:
    """Copy to numpy; bfloat16 goes to float32, which holds it exactly."""
    values = values.detach()
    if values.dtype == torch.bfloat16:
        values = values.float()
    return np.asarray(values.cpu().numpy())


@dataclass(frozen=True)
class LayerRecords:
    """One layer over a batch, as the tables want it."""

    experts: NDArray[Any]
    weights: NDArray[Any]
    output_norms: NDArray[Any]
    stats: dict[str, NDArray[Any]]
    mass: NDArray[Any]


@dataclass(frozen=True)
class BatchRecords:
    """A batch of examples, ready to be put into its unit.

    Attributes
    ----------
    examples
        Indices of the examples within the unit, in the order of the batch.
    layers
        For each MoE layer its records, tokens in the order of the batch.
    next_logprobs
        (token,): NaN at each example's last position.
    predictions
        For each example its rows of the table ``predictions``, the example's number left out.
    arrays
        For each array the rows of the kept tokens, in the order of the batch.
    lens
        What the logit lens read; None without one.
    """

    examples: tuple[int, ...]
    layers: dict[int, LayerRecords]
    next_logprobs: NDArray[Any]
    predictions: tuple[tuple[dict[str, Any], ...], ...]
    arrays: dict[ArrayKey, Activations]
    lens: LensRecords | None = None


def record_layers(batch: BatchActivations, lengths: Sequence[int]) -> dict[int, LayerRecords]:
    """Reduce each MoE layer of a batch to what the tables keep of it.

    Parameters
    ----------
    batch
        The activations.
    lengths
        Tokens of each example, in the order of the batch.
    """
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return {
        layer: _record_layer(activations, owner, len(lengths))
        for layer, activations in batch.layers.items()
    }


def _record_layer(layer: LayerActivations, owner: torch.Tensor, n_examples: int) -> LayerRecords:
    probabilities = layer.probabilities.float()
    top = probabilities.topk(min(2, probabilities.shape[-1]), dim=-1).values
    margin = top[:, 0] - top[:, 1] if top.shape[-1] == 2 else torch.ones_like(top[:, 0])
    mass = torch.zeros(n_examples, probabilities.shape[-1], dtype=torch.float64)
    mass.index_add_(0, owner, probabilities.double().cpu())
    stats = {
        "entropy": torch.special.entr(probabilities).sum(dim=-1) / np.log(2.0),
        "margin": margin,
        "logsumexp": layer.router_logits.float().logsumexp(dim=-1),
        "topk_mass": probabilities.gather(-1, layer.experts).sum(dim=-1),
        "moe_output_norm": torch.linalg.vector_norm(layer.block_output.float(), dim=-1),
    }
    if layer.shared_gate is not None:
        stats["shared_gate"] = layer.shared_gate.float()
    return LayerRecords(
        experts=to_numpy(layer.experts),
        weights=to_numpy(layer.weights.float()),
        output_norms=to_numpy(torch.linalg.vector_norm(layer.expert_outputs.float(), dim=-1)),
        stats={name: to_numpy(values) for name, values in stats.items()},
        mass=to_numpy(mass.float()),
    )


def _present(values: torch.Tensor | None, name: str) -> torch.Tensor:
    if values is None:
        raise ValueError(f"{name} was not computed")
    return values


def record_arrays(
    batch: BatchActivations, kept: NDArray[np.bool_], arrays: Mapping[str, tuple[int, ...]]
) -> dict[ArrayKey, Activations]:
    """Take the rows that the arrays keep of a batch.

    Parameters
    ----------
    batch
        The activations.
    kept
        (token,): which tokens the arrays keep.
    arrays
        For each array name the layers it is kept for.
    """
    rows = torch.from_numpy(kept.nonzero()[0])
    found = {}
    for name, layers in arrays.items():
        for layer in layers:
            if name == "residual_pre":
                values = batch.residual_pre[layer]
            elif name == "logit_direction":
                values = _present(batch.logit_direction, name)
            else:
                values = getattr(batch.layers[layer], name)
            taken = values if kept.all() else values[rows.to(values.device)]
            found[ArrayKey(name, layer)] = to_numpy(taken)
    return found
