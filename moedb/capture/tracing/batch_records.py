"""What is stored of a batch: activations reduced to numpy, in the batch's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.structure.wiring import BlockWiring
from moedb.capture.tracing.activations import LayerActivations
from moedb.capture.tracing.checks import check_layer
from moedb.capture.tracing.logit_lens import LensReading, LensRecords, after_attention, entering
from moedb.schemas.arrays import IMAGES, INPUT_LAYER
from moedb.store.arrays.stored import Activations, ArrayKey


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


class BatchReader:
    """Checks a batch and reduces it to what is stored, layer by layer, while the model runs.

    Parameters
    ----------
    wirings
        The model's MoE blocks.
    lengths
        Tokens of each example, in the order of the batch.
    kept
        (token,): which tokens the arrays keep.
    arrays
        For each array name the layers it is kept for.
    lens
        Reads the residual streams through the logit lens; None without one.

    Attributes
    ----------
    layers, arrays
        As in :class:`BatchRecords`.
    """

    def __init__(
        self,
        wirings: Sequence[BlockWiring],
        lengths: Sequence[int],
        kept: NDArray[np.bool_],
        arrays: Mapping[str, tuple[int, ...]],
        lens: LensReading | None = None,
    ) -> None:
        self.layers: dict[int, LayerRecords] = {}
        self.arrays: dict[ArrayKey, Activations] = {}
        self._wirings = {wiring.block.layer: wiring for wiring in wirings}
        self._owner = torch.repeat_interleave(torch.tensor(lengths))
        self._n_examples = len(lengths)
        self._rows = None if kept.all() else torch.from_numpy(kept.nonzero()[0])
        self._wanted = arrays
        self._lens = lens
        self._last: torch.Tensor = torch.empty(0)

    def images(self, images: torch.Tensor) -> None:
        """Take what the model is given, UInt8[Tensor, "token height width channel"]."""
        self._keep(IMAGES, INPUT_LAYER, images.flatten(1).float())

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        """Take the residual stream entering a layer, (token, d_model)."""
        self._keep("residual_pre", layer, residual)
        if self._lens is not None:
            self._lens.take(entering(layer), residual)
        if layer in self._wanted.get("logit_direction", ()):
            self._last = residual

    def layer(self, layer: int, activations: LayerActivations) -> None:
        """Take what an MoE layer did.

        Raises
        ------
        CheckError
            If it contradicts the model's own arithmetic.
        """
        check_layer(activations, self._wirings[layer])
        self.layers[layer] = _record_layer(activations, self._owner, self._n_examples)
        for name in self._wanted:
            if getattr(activations, name, None) is not None:
                self._keep(name, layer, getattr(activations, name))
        if self._lens is not None and activations.residual_mid is not None:
            self._lens.take(after_attention(layer), activations.residual_mid)

    def read_lens(self) -> LensRecords | None:
        """Read through the lens what the model left, once it has run."""
        if self._lens is None:
            return None
        for layer in self._wanted.get("logit_direction", ()):
            self._keep("logit_direction", layer, self._lens.directions(self._last))
        return self._lens.records()

    def _keep(self, name: str, layer: int, values: torch.Tensor) -> None:
        if layer in self._wanted.get(name, ()):
            taken = values if self._rows is None else values[self._rows.to(values.device)]
            self.arrays[ArrayKey(name, layer)] = to_numpy(taken)


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
