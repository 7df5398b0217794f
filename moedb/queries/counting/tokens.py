"""Which tokens of a run are counted, and what is told apart among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.stretches import Slab, Stretch
    from moedb.store.reading.snapshot import RunSnapshot

EVERYTHING = "all"
"""The selection of all examples."""

_SELECTED = """
select selections.example_id
from selections
where
    selections.run_id = cast($run as varchar)
    and selections.selection = cast($selection as varchar)
"""
# not joined with the examples: so they come in the order of the files
_TOKENS = """
select {columns}
from tokens
where tokens.run_id = cast($run as varchar)
"""
_ON_TOKENS = """
select token_labels.token_idx, token_labels.value
from token_labels
where token_labels.run_id = cast($run as varchar) and token_labels.key = cast($key as varchar)
"""
_ON_EXAMPLES = """
select tokens.token_idx, example_values.value
from tokens
join example_values using (run_id, example_id)
where
    example_values.run_id = cast($run as varchar)
    and example_values.key = cast($key as varchar)
"""
_TOKEN_IDS = {
    "input": "tokens.token_id",
    "next": "lead(tokens.token_id) over (partition by tokens.example_id order by tokens.position)",
}


@dataclass(frozen=True)
class Grouped:
    """Tokens, each with its group; a token may be in several.

    Attributes
    ----------
    token_idx
        (entry,): the tokens, ascending.
    group
        (entry,): for each its group, numbered from 0.
    names
        (group,): what each group is.
    """

    token_idx: NDArray[np.int64]
    group: NDArray[np.int64]
    names: NDArray[np.object_] | NDArray[np.int64]

    def within(self, first: int, n_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places among ``n_tokens`` tokens from ``first`` on, and their groups."""
        import numpy as np

        low, high = np.searchsorted(self.token_idx, (first, first + n_tokens))
        return self.token_idx[low:high] - first, self.group[low:high]

    def chosen_by(self, stretch: Stretch) -> Iterator[Slab]:
        """What those of the tokens that stand in a stretch chose, in their order."""
        places, _ = self.within(stretch.first_token, stretch.n_tokens)
        for slab in stretch.slabs:
            yield slab.of(places)


class _Everything(Grouped):
    """All tokens of a run as one group, without their numbers."""

    def within(self, first: int, n_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        import numpy as np

        return np.arange(n_tokens), np.zeros(n_tokens, np.int64)

    def chosen_by(self, stretch: Stretch) -> Iterator[Slab]:
        yield from stretch.slabs


def selected_tokens(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str
) -> Grouped:
    """The tokens of a selection, as one group."""
    import numpy as np

    if selection == EVERYTHING:
        none = np.zeros(0, np.int64)
        return _Everything(none, none, np.array([selection], dtype=object))
    tokens = _selected(connection, run, selection)["token_idx"]
    return _in_order(tokens, np.zeros(len(tokens), np.int64), np.array([selection], dtype=object))


def selected_examples(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str
) -> Grouped:
    """The examples of a selection, as one group of them in the place of tokens."""
    import numpy as np

    given = {"run": run.run_id, "selection": selection}
    if selection == EVERYTHING:
        return selected_tokens(connection, run, selection)
    examples = _fetch(connection, _SELECTED, given)["example_id"]
    group = np.zeros(len(examples), np.int64)
    return _in_order(examples, group, np.array([selection], dtype=object))


def labelled_tokens(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, key: str
) -> Grouped:
    """The tokens of a selection by their values of a label, of a run, an example or a token."""
    import numpy as np
    import pyarrow as pa

    given = {"run": run.run_id, "key": key}
    parts = (_ON_TOKENS, _ON_EXAMPLES)
    found = [connection.sql(sql, params=given).to_arrow_table() for sql in parts]
    labels = pa.concat_tables(found).combine_chunks()
    # names are compared once for each value, not for each token
    coded = labels["value"].combine_chunks().dictionary_encode()
    names = coded.dictionary.to_numpy(zero_copy_only=False)
    token_idx, group = labels["token_idx"].to_numpy(), coded.indices.to_numpy()
    if selection != EVERYTHING:
        selected = selected_tokens(connection, run, selection).token_idx
        is_selected = np.isin(token_idx, selected)
        token_idx, group = token_idx[is_selected], group[is_selected]
    ordered = _in_order(token_idx, group, names)
    # an example and a token of it may carry the same value, which then counts once
    is_repeated = ordered.token_idx[1:] == ordered.token_idx[:-1]
    if is_repeated.any():
        pairs = np.unique(np.stack([ordered.token_idx, ordered.group]), axis=1)
        ordered = Grouped(pairs[0], pairs[1], names)
    return ordered


def tokens_by_id(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, of: str, least: int
) -> Grouped:
    """The tokens of a selection by token id: their own (``input``), or that of the ``next``.

    Tokens without one are left out, and those of ids that occur less often than ``least``. The
    groups stand in no order.
    """
    import numpy as np
    import pyarrow as pa

    found = _selected(connection, run, selection, f"{_TOKEN_IDS[of]} as token_id")
    ids = np.ma.filled(np.ma.asarray(found["token_id"]).astype(np.int64), -1)
    # by hashing, which takes a tenth of the time of sorting
    coded = pa.array(ids).dictionary_encode()
    names, group = coded.dictionary.to_numpy(), coded.indices.to_numpy()
    is_kept = (names >= 0) & (np.bincount(group, minlength=len(names)) >= least)
    tokens = found["token_idx"]
    if not is_kept.all():
        has_id = is_kept[group]
        numbers = np.cumsum(is_kept) - 1
        tokens, group, names = tokens[has_id], numbers[group[has_id]], names[is_kept]
    return _in_order(tokens, group, names)


def _in_order(
    tokens: NDArray[np.int64],
    group: NDArray[np.int64],
    names: NDArray[np.object_] | NDArray[np.int64],
) -> Grouped:
    import numpy as np

    if (tokens[1:] < tokens[:-1]).any():
        order = np.argsort(tokens, kind="stable")
        tokens, group = tokens[order], group[order]
    return Grouped(tokens, group.astype(np.int64), names)


def _selected(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, *columns: str
) -> Mapping[str, NDArray[Any]]:
    """The tokens of a selection: ``token_idx``, and what else is asked for."""
    import numpy as np

    given = {"run": run.run_id}
    wanted = ("tokens.token_idx", *columns)
    if selection == EVERYTHING:
        return _fetch(connection, _TOKENS.format(columns=", ".join(wanted)), given)
    chosen = _fetch(connection, _SELECTED, {**given, "selection": selection})["example_id"]
    wanted += ("tokens.example_id",)
    found = _fetch(connection, _TOKENS.format(columns=", ".join(wanted)), given)
    is_chosen = np.isin(found["example_id"], chosen)
    return {name: values[is_chosen] for name, values in found.items()}


def _fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, str]
) -> Mapping[str, NDArray[Any]]:
    columns: Mapping[str, Any] = connection.execute(sql, dict(parameters)).fetchnumpy()
    return columns
