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


_ROLLED_UP = 4
"""Decisions for each row of a roll-up that adding them up from there is faster for."""


def is_rolled_up(run: RunSnapshot) -> bool:
    """Whether there are few examples, so that what each one's tokens chose is soon added up.

    ``router_mass`` has a row for each example, layer and expert, with its decisions from format 2
    on. Of short examples it has as many rows as there are decisions.
    """
    return run.format > 1 and _ROLLED_UP * run.n_rows("router_mass") <= run.n_rows("routing")


def layers_of(run: RunSnapshot) -> tuple[Layer, ...]:
    """The MoE layers of a run, in order."""
    rows = sorted(run.manifest.layers, key=lambda row: int(row["layer"]))
    return tuple(Layer(int(r["layer"]), int(r["n_experts"]), int(r["top_k"])) for r in rows)


def slabs_of(run: RunSnapshot) -> tuple[tuple[Layer, ...], ...]:
    """Successive layers of the same shape, which are counted as one array; mostly all are."""
    found = groupby(layers_of(run), lambda layer: (layer.n_experts, layer.top_k))
    return tuple(tuple(layers) for _, layers in found)
