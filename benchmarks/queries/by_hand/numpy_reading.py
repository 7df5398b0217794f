"""Reading a run's Parquet files into numpy: selections, decisions, labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.queries.by_hand.arithmetic import Array
from benchmarks.queries.by_hand.run_files import RunFiles


@dataclass(frozen=True)
class Selection:
    """The examples that a query is about: all but corrupted ones.

    Attributes
    ----------
    n_of_example
        (example,) the tokens of each example of the run, selected or not.
    examples
        (example,) whether it is selected.
    splits
        (example,) its split.
    """

    n_of_example: Array
    examples: Array
    splits: Array

    @property
    def tokens(self) -> Array | None:
        """(token,) whether it is selected; None where all are."""
        if self.examples.all():
            return None
        return np.repeat(self.examples, self.n_of_example)

    @property
    def n_tokens(self) -> int:
        """Selected tokens."""
        return int(self.n_of_example[self.examples].sum())

    @property
    def last_tokens(self) -> Array:
        """(selected example,) its last token."""
        return np.asarray(self.n_of_example.cumsum()[self.examples] - 1)

    @property
    def of_token(self) -> Array:
        """(token,) its example."""
        return np.repeat(np.arange(len(self.examples)), self.n_of_example)


def read_columns(run: RunFiles, table: str, *columns: str) -> pa.Table:
    return pq.read_table(run.of(table), columns=list(columns))


def read_selection(run: RunFiles) -> Selection:
    rows = read_columns(run, "examples", "split", "n_tokens")
    splits = rows["split"].to_numpy()
    return Selection(rows["n_tokens"].to_numpy(), splits != "corrupted", splits)


def read_units(
    run: RunFiles, table: str, *columns: str, kept: Array | None = None
) -> Iterator[tuple[slice, list[Array]]]:
    """Yield of each unit which tokens it has, and its columns as (layer, token) or with ranks."""
    shape, first = run.shape, 0
    last = (shape.top_k,) if table == "routing" else ()
    for path in run.of(table):
        rows = pq.ParquetFile(path).read(list(columns))
        arrays = [rows[name].to_numpy().reshape(shape.layers, -1, *last) for name in columns]
        tokens = slice(first, first + arrays[0].shape[1])
        first = tokens.stop
        if kept is not None:
            arrays = [array[:, kept[tokens]] for array in arrays]
        yield tokens, arrays


def read_experts(run: RunFiles, kept: Array | None = None) -> Array:
    """(layer, token, rank): all decisions, a byte each where there are no more than 256 experts."""
    small = np.min_scalar_type(run.shape.experts - 1)
    return np.concatenate(
        [expert.astype(small) for _, (expert,) in read_units(run, "routing", "expert", kept=kept)],
        axis=1,
    )


@dataclass(frozen=True)
class Labels:
    """A label of the selected tokens: its values, sorted, and (token,) which one, -1 for none."""

    values: list[str]
    of_token: Array

    @property
    def sizes(self) -> Array:
        """(value,) tokens that have it."""
        return np.bincount(self.of_token[self.of_token >= 0], minlength=len(self.values))


def _coded(rows: pa.Table, key: str) -> tuple[list[str], pa.Table, Array]:
    """The values of a key, sorted, the rows that have it, and the place of each one's value."""
    rows = rows.filter(pc.equal(rows["key"], key))
    coded = rows["value"].combine_chunks().dictionary_encode()
    values = coded.dictionary.to_numpy(zero_copy_only=False)
    places = np.argsort(np.argsort(values))
    return sorted(values), rows, places[coded.indices.to_numpy()]


def labels_of(run: RunFiles, key: str, on: str, chosen: Selection) -> Labels:
    """A label that is on examples or on tokens."""
    if on == "tokens":
        values, rows, codes = _coded(
            read_columns(run, "token_labels", "token_idx", "key", "value"), key
        )
        of_token = np.full(chosen.n_of_example.sum(), -1)
        of_token[rows["token_idx"].to_numpy()] = codes
    else:
        values, of_example = example_labels(run, key, chosen)
        of_token = np.repeat(of_example, chosen.n_of_example)
    if chosen.tokens is not None:
        of_token[~chosen.tokens] = -1
    return Labels(values, of_token)


def example_labels(run: RunFiles, key: str, chosen: Selection) -> tuple[list[str], Array]:
    """The values, sorted, and (example,) which one it has, -1 for none."""
    values, rows, codes = _coded(
        read_columns(run, "example_labels", "example_id", "key", "value"), key
    )
    of_example = np.full(len(chosen.examples), -1)
    of_example[rows["example_id"].to_numpy()] = codes
    return values, of_example


def read_token_ids(run: RunFiles, kept: Array | None) -> Array:
    ids = read_columns(run, "tokens", "token_id")["token_id"].to_numpy()
    return np.asarray(ids if kept is None else ids[kept])
