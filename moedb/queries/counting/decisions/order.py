"""Where a file of decisions has which tokens, by the statistics of its row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from moedb.queries.counting.decisions.layers import Layer


class UnorderedError(Exception):
    """A file is not in the order of the format, or too large: the SQL does not depend on it."""


@dataclass(frozen=True)
class Place:
    """Where the rows of consecutive tokens, or examples, stand together in a file.

    Attributes
    ----------
    row_groups
        The numbers of the row groups that hold them, and nothing else.
    first_token
        token_idx of the first of the tokens (example_id of the examples), which follow one another.
    n_tokens
        How many they are.
    """

    row_groups: Sequence[int]
    first_token: int
    n_tokens: int


def places_in(
    metadata: pq.FileMetaData, layers: Sequence[Layer], number: str = "token_idx"
) -> Iterator[Place]:
    """Find the stretches of a file: every layer of some tokens, then every layer of the next.

    The order of the rows is checked by what the file says of its row groups, without reading the
    tokens' numbers.

    Parameters
    ----------
    metadata
        The file's footer.
    layers
        The layers, each with its rows of a token for ``top_k``.
    number
        The column with the numbers of the tokens, or of the examples.

    Raises
    ------
    UnorderedError
        If a stretch does not hold every layer of consecutive tokens, in the order of the format.
    """
    columns = _column(metadata, "layer"), _column(metadata, number)
    for row_groups in _stretches(metadata, layers, columns[0]):
        yield _checked(metadata, row_groups, layers, columns)


def _stretches(
    metadata: pq.FileMetaData, layers: Sequence[Layer], column: int
) -> Iterator[list[int]]:
    """The row groups of each stretch: one begins where the layers begin again."""
    stretch: list[int] = []
    last = None
    for number in range(metadata.num_row_groups):
        low, high = _extremes(metadata.row_group(number), column)
        if stretch and len(layers) > 1 and last == layers[-1].layer and low == layers[0].layer:
            yield stretch
            stretch = []
        stretch.append(number)
        last = high
    if not stretch:
        raise UnorderedError
    yield stretch


def _checked(
    metadata: pq.FileMetaData,
    numbers: Sequence[int],
    layers: Sequence[Layer],
    columns: tuple[int, int],
) -> Place:
    of_layers, of_tokens = columns
    groups = [metadata.row_group(number) for number in numbers]
    tokens = [_extremes(group, of_tokens) for group in groups]
    first, last = min(low for low, _ in tokens), max(high for _, high in tokens)
    n_tokens = last - first + 1
    starts = [0]
    for layer in layers:
        starts.append(starts[-1] + n_tokens * layer.top_k)
    if sum(group.num_rows for group in groups) != starts[-1] or not layers:
        raise UnorderedError
    begin = 0
    for group, span in zip(groups, tokens, strict=True):
        end = begin + group.num_rows
        place_of_first, place_of_last = _place(starts, begin), _place(starts, end - 1)
        expected = layers[place_of_first].layer, layers[place_of_last].layer
        if _extremes(group, of_layers) != expected:
            raise UnorderedError
        if place_of_first == place_of_last:
            k = layers[place_of_first].top_k
            within = begin - starts[place_of_first], end - 1 - starts[place_of_first]
            if span != (first + within[0] // k, first + within[1] // k):
                raise UnorderedError
        begin = end
    return Place(numbers, first, n_tokens)


def _column(metadata: pq.FileMetaData, name: str) -> int:
    names = [metadata.schema.column(number).name for number in range(metadata.num_columns)]
    return names.index(name)


def _place(starts: Sequence[int], row: int) -> int:
    return next(i for i, (low, high) in enumerate(pairwise(starts)) if low <= row < high)


def _extremes(group: pq.RowGroupMetaData, column: int) -> tuple[int, int]:
    statistics = group.column(column).statistics
    if statistics is None or not statistics.has_min_max:
        raise UnorderedError
    return int(statistics.min), int(statistics.max)
