"""The MoE layers of a run, as it declares them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot


@dataclass(frozen=True)
class Layer:
    """A layer as the run declares it."""

    layer: int
    n_experts: int
    top_k: int


def layers_of(run: RunSnapshot) -> tuple[Layer, ...]:
    """The MoE layers of a run, in order."""
    rows = sorted(run.manifest.layers, key=lambda row: int(row["layer"]))
    return tuple(Layer(int(r["layer"]), int(r["n_experts"]), int(r["top_k"])) for r in rows)


def slabs_of(run: RunSnapshot) -> tuple[tuple[Layer, ...], ...]:
    """Successive layers of the same shape, which are counted as one array; mostly all are."""
    found = groupby(layers_of(run), lambda layer: (layer.n_experts, layer.top_k))
    return tuple(tuple(layers) for _, layers in found)
