"""Reads the decisions of a run stretch by stretch, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from moedb.queries.counting.decisions.files import column_of, opened, side_by_side
from moedb.queries.counting.decisions.layers import layers_of, slabs_of
from moedb.queries.counting.decisions.order import UnorderedError, places_in
from moedb.queries.counting.decisions.workspace import scratch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.layers import Layer
    from moedb.queries.counting.decisions.order import Place
    from moedb.store.reading.snapshot import RunSnapshot

T = TypeVar("T")


@dataclass(frozen=True)
class Slab:
    """What is known of consecutive tokens at successive layers of the same shape.

    Attributes
    ----------
    layers
        The layers.
    columns
        By the names of the table's columns, (layer, token, rank); of ``router_stats``, which has
        no ranks, (layer, token, 1); of ``router_mass`` (layer, example, expert).
    """

    layers: Sequence[Layer]
    columns: Mapping[str, NDArray[Any]]

    @property
    def experts(self) -> NDArray[np.int32]:
        """(layer, token, rank): the experts."""
        return self.columns["expert"]

    @property
    def n_experts(self) -> int:
        """Experts of each of the layers."""
        return self.layers[0].n_experts

    @property
    def top_k(self) -> int:
        """Experts of each token."""
        return self.layers[0].top_k

    def of(self, tokens: NDArray[np.int64]) -> Slab:
        """Return the slab of some of the tokens, given by their places, ascending."""
        import numpy as np

        n_tokens = next(iter(self.columns.values())).shape[1]
        if len(tokens) == n_tokens and np.array_equal(tokens, np.arange(n_tokens)):
            return self
        at = self.layers[0].layer  # all slabs of a stretch are there at once
        taken = {
            name: _taken(f"{name} {at}", values, tokens) for name, values in self.columns.items()
        }
        return Slab(self.layers, taken)


@dataclass(frozen=True)
class Stretch:
    """The decisions of consecutive tokens, which stand together in a file.

    Attributes
    ----------
    first_token
        token_idx of the first of its tokens, which follow one another.
    n_tokens
        How many they are.
    slabs
        Their decisions, all layers in order; the same layers in each stretch of a run.
    """

    first_token: int
    n_tokens: int
    slabs: Sequence[Slab]


def each_stretch(
    run: RunSnapshot,
    count: Callable[[Stretch], T],
    columns: Sequence[str] = ("expert",),
    table: Literal["routing", "router_stats", "router_mass"] = "routing",
) -> Iterator[T]:
    """Count what is known of the tokens of each stretch of a run; in ``router_mass`` of examples.

    Parameters
    ----------
    run
        The run.
    count
        Is called for each stretch, on one of several threads. The stretch is good for that call
        only: the next one is read into the same memory.
    columns
        What to read.
    table
        Where.

    Yields
    ------
    What ``count`` returns, in the order of the stretches.

    Raises
    ------
    UnorderedError
        If the run is on object storage, or a file does not hold every layer of consecutive tokens,
        in the order of the format, lacks values, or names an expert that the layer does not have.
    StoreError
        If a file is gone, or damaged.
    """
    if run.remote is not None:
        raise UnorderedError
    slabs = slabs_of(run)
    layers = layers_of(run)
    if table == "router_stats":
        layers = tuple(replace(layer, top_k=1) for layer in layers)
    elif table == "router_mass":
        layers = tuple(replace(layer, top_k=layer.n_experts) for layer in layers)
    widths = {layer.layer: layer.top_k for layer in layers}
    number = "example_id" if table == "router_mass" else "token_idx"

    def read(path: Path, metadata: pq.FileMetaData, place: Place) -> T:
        with opened(path, metadata) as file:
            rows = file.read_row_groups(
                list(place.row_groups), columns=list(columns), use_threads=False
            )
            if any(rows[name].null_count for name in columns):
                raise UnorderedError
            values = {name: column_of(rows, name) for name in columns}
        stretch = _stretch(place, slabs, values, widths)
        if table == "routing" and not all(_are_known(slab) for slab in stretch.slabs):
            raise UnorderedError
        return count(stretch)

    def tasks() -> Iterator[Callable[[], T]]:
        for path in run.files(table):
            with opened(path) as file:
                metadata = file.metadata
            for place in places_in(metadata, layers, number):
                yield partial(read, path, metadata, place)

    return side_by_side(tasks())


def _taken(name: str, values: NDArray[Any], tokens: NDArray[np.int64]) -> NDArray[Any]:
    import numpy as np

    shape = values.shape[0], len(tokens), values.shape[2]
    # with a mode that cannot fail numpy writes there at once
    return np.take(values, tokens, axis=1, out=scratch(name, shape, values.dtype), mode="clip")


def _stretch(
    place: Place,
    slabs: Sequence[Sequence[Layer]],
    columns: Mapping[str, NDArray[Any]],
    widths: Mapping[int, int],
) -> Stretch:
    found = []
    start = 0
    for layers in slabs:
        shape = len(layers), place.n_tokens, widths[layers[0].layer]
        rows = slice(start, start + shape[0] * shape[1] * shape[2])
        start = rows.stop
        found.append(
            Slab(layers, {name: values[rows].reshape(shape) for name, values in columns.items()})
        )
    return Stretch(place.first_token, place.n_tokens, tuple(found))


def _are_known(slab: Slab) -> bool:
    experts = slab.experts
    return not experts.size or bool(experts.min() >= 0 and experts.max() < slab.n_experts)
