"""What is stored of a batch: activations reduced to numpy, in the batch's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.examples import Example
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
        For each example with a target its row of the table ``predictions``; None without.
    arrays
        For each array the rows of the kept tokens, in the order of the batch.
    """

    examples: tuple[int, ...]
    layers: dict[int, LayerRecords]
    next_logprobs: NDArray[Any]
    predictions: tuple[dict[str, Any] | None, ...]
    arrays: dict[ArrayKey, Activations]


def record_batch(
    batch: BatchActivations,
    examples: Sequence[Example],
    indices: Sequence[int],
    kept: NDArray[np.bool_],
    arrays: Mapping[str, tuple[int, ...]],
    tokenizer: Any,
) -> BatchRecords:
    """Reduce a batch to what is stored of it.

    Parameters
    ----------
    batch
        The activations.
    examples, indices
        The examples of the batch, in its order, and their indices within the unit.
    kept
        (token,): which tokens the arrays keep.
    arrays
        For each array name the layers it is kept for.
    tokenizer
        Turns predicted ids into text.
    """
    lengths = [len(example) for example in examples]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return BatchRecords(
        examples=tuple(indices),
        layers={
            layer: _record_layer(activations, owner, len(examples))
            for layer, activations in batch.layers.items()
        },
        next_logprobs=_next_logprobs(batch.logits, examples),
        predictions=_predictions(batch.logits, examples, tokenizer),
        arrays=_arrays(batch, kept, arrays),
    )


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


def _next_logprobs(logits: torch.Tensor, examples: Sequence[Example]) -> NDArray[Any]:
    found = np.full(len(logits), np.nan, dtype=np.float32)
    start = 0
    for example in examples:
        end = start + len(example)
        if len(example) > 1:
            following = torch.tensor(example.token_ids[1:], device=logits.device).unsqueeze(-1)
            logprobs = logits[start : end - 1].float().log_softmax(dim=-1)
            found[start : end - 1] = to_numpy(logprobs.gather(-1, following).squeeze(-1))
        start = end
    return found


def _predictions(
    logits: torch.Tensor, examples: Sequence[Example], tokenizer: Any
) -> tuple[dict[str, Any] | None, ...]:
    rows: list[dict[str, Any] | None] = []
    end = 0
    for example in examples:
        end += len(example)
        if example.target_id is None:
            rows.append(None)
            continue
        last = logits[end - 1].float()
        predicted = int(last.argmax())
        diff = None if example.foil_id is None else last[example.target_id] - last[example.foil_id]
        rows.append(
            {
                "target": tokenizer.decode([example.target_id]),
                "predicted": tokenizer.decode([predicted]),
                "correct": int(predicted == example.target_id),
                "target_logprob": float(last.log_softmax(dim=-1)[example.target_id]),
                "logit_diff": None if diff is None else float(diff),
            }
        )
    return tuple(rows)


def _arrays(
    batch: BatchActivations, kept: NDArray[np.bool_], arrays: Mapping[str, tuple[int, ...]]
) -> dict[ArrayKey, Activations]:
    rows = torch.from_numpy(kept.nonzero()[0])
    found = {}
    for name, layers in arrays.items():
        for layer in layers:
            if name == "residual_pre":
                values = batch.residual_pre[layer]
            else:
                values = getattr(batch.layers[layer], name)
            found[ArrayKey(name, layer)] = to_numpy(values[rows.to(values.device)])
    return found
