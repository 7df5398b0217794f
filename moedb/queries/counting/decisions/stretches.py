"""Reads the decisions of a run stretch by stretch, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
    """What consecutive tokens chose at successive layers of the same shape.

    Attributes
    ----------
    layers
        The layers.
    experts
        (layer, token, rank): the experts.
    weights
        (layer, token, rank): their weights; None where they were not asked for.
    """

    layers: Sequence[Layer]
    experts: NDArray[np.int32]
    weights: NDArray[np.float32] | None = None

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
        n_tokens = self.experts.shape[1]
        if len(tokens) == n_tokens and (not n_tokens or tokens[-1] == n_tokens - 1):
            import numpy as np

            if np.array_equal(tokens, np.arange(n_tokens)):
                return self
        at = self.layers[0].layer  # all slabs of a stretch are there at once
        weights = None if self.weights is None else _taken(f"weights {at}", self.weights, tokens)
        return Slab(self.layers, _taken(f"experts {at}", self.experts, tokens), weights)


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
    run: RunSnapshot, count: Callable[[Stretch], T], *, weights: bool = False
) -> Iterator[T]:
    """Count the decisions of each stretch of a run.

    Parameters
    ----------
    run
        The run.
    count
        Is called for each stretch, on one of several threads. The stretch is good for that call
        only: the next one is read into the same memory.
    weights
        Whether to read the weights too.

    Yields
    ------
    What ``count`` returns, in the order of the stretches.

    Raises
    ------
    UnorderedError
        If a file does not hold every layer of consecutive tokens, in the order of the format, or
        names an expert that the layer does not have.
    StoreError
        If a file is gone, or damaged.
    """
    slabs = slabs_of(run)
    columns = ("expert", "weight") if weights else ("expert",)

    def read(path: Path, metadata: pq.FileMetaData, place: Place) -> T:
        with opened(path, metadata) as file:
            table = file.read_row_groups(
                list(place.row_groups), columns=list(columns), use_threads=False
            )
            read_columns = [column_of(table, name) for name in columns]
        return count(_stretch(place, slabs, *read_columns))

    def tasks() -> Iterator[Callable[[], T]]:
        for path in run.files("routing"):
            with opened(path) as file:
                metadata = file.metadata
            for place in places_in(metadata, layers_of(run)):
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
    experts: NDArray[np.int32],
    weights: NDArray[np.float32] | None = None,
) -> Stretch:
    found = []
    start = 0
    for layers in slabs:
        shape = len(layers), place.n_tokens, layers[0].top_k
        rows = slice(start, start + shape[0] * shape[1] * shape[2])
        start = rows.stop
        chosen = experts[rows].reshape(shape)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < layers[0].n_experts):
            raise UnorderedError
        found.append(
            Slab(layers, chosen, None if weights is None else weights[rows].reshape(shape))
        )
    return Stretch(place.first_token, place.n_tokens, tuple(found))
