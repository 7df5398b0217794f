"""The decisions of a run, layer by layer, as matrices of tokens and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import StoreDamagedError
from moedb.store.engine.missing_files import file_is_gone

if TYPE_CHECKING:
    import numpy as np
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from moedb.store.reading.snapshot import RunSnapshot


MOST_HELD = 2**29
"""Decisions of the largest run whose experts are held at once."""


class UnorderedError(Exception):
    """A file is not in the order of the format, or too large: the SQL does not depend on it."""


@dataclass(frozen=True)
class Layer:
    """A layer as the run declares it."""

    layer: int
    n_experts: int
    top_k: int


@dataclass(frozen=True)
class Block:
    """What consecutive tokens chose at one layer.

    Attributes
    ----------
    layer
        The layer.
    experts
        (token, rank): the experts.
    weights
        (token, rank): their weights; None where they were not asked for.
    """

    layer: Layer
    experts: NDArray[np.int64]
    weights: NDArray[np.float32] | None


@dataclass(frozen=True)
class Stretch:
    """The decisions of consecutive tokens, which stand together in a file.

    Attributes
    ----------
    first_token
        token_idx of the first of its tokens, which follow one another.
    n_tokens
        How many they are.
    blocks
        A block for each layer, in order; each has all of the tokens.
    """

    first_token: int
    n_tokens: int
    blocks: Sequence[Block]


def layers_of(run: RunSnapshot) -> tuple[Layer, ...]:
    """The MoE layers of a run, in order."""
    rows = sorted(run.manifest.layers, key=lambda row: int(row["layer"]))
    return tuple(Layer(int(r["layer"]), int(r["n_experts"]), int(r["top_k"])) for r in rows)


def read_blocks(run: RunSnapshot, *, weights: bool = False) -> Iterator[Stretch]:
    """Read the routing of a run, stretch by stretch.

    The order of the rows is checked by what the files say of their row groups, without reading
    the tokens' numbers.

    Parameters
    ----------
    run
        The run.
    weights
        Whether to read the weights too.

    Raises
    ------
    UnorderedError
        If a file does not hold every layer of consecutive tokens, in the order of the format, or
        names an expert that the layer does not have.
    StoreError
        If a file is gone, or damaged.
    """
    layers = layers_of(run)
    columns = ["expert", "weight"] if weights else ["expert"]
    for path in run.files("routing"):
        with _opened(path) as file:
            for groups in _stretches(file.metadata, layers):
                first, n_tokens = _tokens_of(file.metadata, groups, layers)
                table = file.read_row_groups(groups, columns=columns)
                yield Stretch(first, n_tokens, tuple(_blocks(table, layers, n_tokens)))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise file_is_gone(path) from error
    except (OSError, pa.ArrowException) as error:
        raise StoreDamagedError(f"{path} cannot be read: {error}", "moedb verify") from error


@dataclass(frozen=True)
class HeldExperts:
    """The experts of a run, all at once.

    Attributes
    ----------
    tokens
        (token,): the tokens, ascending.
    experts
        For each layer (token, rank): the experts, a byte or two each.
    """

    tokens: NDArray[np.int64]
    experts: Mapping[int, NDArray[np.unsignedinteger]]

    def rows_of(self, token_idx: NDArray[np.int64]) -> NDArray[np.intp]:
        """The rows of tokens.

        Raises
        ------
        UnorderedError
            If a token has no decisions.
        """
        import numpy as np

        rows = np.searchsorted(self.tokens, token_idx)
        if not np.array_equal(self.tokens.take(rows, mode="clip"), token_idx):
            raise UnorderedError
        return rows


def hold_experts(run: RunSnapshot) -> HeldExperts:
    """Read the experts of a run and hold them.

    Raises
    ------
    UnorderedError
        If a file is not in order, or the run is too large.
    """
    import numpy as np

    if run.n_rows("routing") > MOST_HELD:
        raise UnorderedError
    layers = layers_of(run)
    tokens = [np.zeros(0, np.int64)]
    experts: dict[int, list[NDArray[np.unsignedinteger]]] = {
        layer.layer: [np.zeros((0, layer.top_k), np.uint8)] for layer in layers
    }
    for stretch in read_blocks(run):
        tokens.append(np.arange(stretch.first_token, stretch.first_token + stretch.n_tokens))
        for block in stretch.blocks:
            small = np.uint8 if block.layer.n_experts <= 2**8 else np.uint16
            experts[block.layer.layer].append(block.experts.astype(small))
    numbers = np.concatenate(tokens)
    if (np.diff(numbers) <= 0).any():
        raise UnorderedError
    return HeldExperts(numbers, {layer: np.concatenate(held) for layer, held in experts.items()})


def _blocks(table: object, layers: Sequence[Layer], n_tokens: int) -> Iterator[Block]:
    import numpy as np

    read = {name: table[name].to_numpy() for name in table.column_names}  # type: ignore[attr-defined, index]
    experts, weights = read["expert"].astype(np.int64), read.get("weight")
    start = 0
    for layer in layers:
        rows = slice(start, start + n_tokens * layer.top_k)
        start = rows.stop
        chosen = experts[rows].reshape(n_tokens, layer.top_k)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < layer.n_experts):
            raise UnorderedError
        yield Block(layer, chosen, None if weights is None else weights[rows].reshape(chosen.shape))


def _stretches(metadata: pq.FileMetaData, layers: Sequence[Layer]) -> Iterator[list[int]]:
    """The row groups of each stretch: one begins where the layers begin again."""
    column = _column(metadata, "layer")
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


def _tokens_of(
    metadata: pq.FileMetaData, numbers: Sequence[int], layers: Sequence[Layer]
) -> tuple[int, int]:
    """The first token of a stretch and how many it has, if its row groups are as they should be."""
    groups = [metadata.row_group(number) for number in numbers]
    of_tokens, of_layers = _column(metadata, "token_idx"), _column(metadata, "layer")
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
    return first, n_tokens


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
