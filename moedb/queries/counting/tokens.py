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

_SELECTED = """
select selections.example_id
from selections
where
    selections.run_id = cast($run as varchar)
    and selections.selection = cast($selection as varchar)
"""
# not joined with the examples: so they come in the order of the files
_TOKENS = """
select tokens.token_idx, tokens.example_id{also}
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


def selected_tokens(connection: duckdb.DuckDBPyConnection, run: str, selection: str) -> Grouped:
    """The tokens of a selection, as one group."""
    import numpy as np

    tokens = _selected(connection, run, selection)["token_idx"]
    return _in_order(tokens, np.zeros(len(tokens), np.int64), np.array([selection], dtype=object))


def labelled_tokens(
    connection: duckdb.DuckDBPyConnection, run: str, selection: str, key: str
) -> Grouped:
    """The tokens of a selection by their values of a label, of a run, an example or a token."""
    import numpy as np
    import pyarrow as pa

    given = {"run": run, "key": key}
    parts = (_ON_TOKENS, _ON_EXAMPLES)
    found = [connection.sql(sql, params=given).to_arrow_table() for sql in parts]
    labels = pa.concat_tables(found).combine_chunks()
    # names are compared once for each value, not for each token
    coded = labels["value"].combine_chunks().dictionary_encode()
    names = coded.dictionary.to_numpy(zero_copy_only=False)
    token_idx, group = labels["token_idx"].to_numpy(), coded.indices.to_numpy()
    selected = selected_tokens(connection, run, selection).token_idx
    if len(selected):
        places = np.minimum(np.searchsorted(selected, token_idx), len(selected) - 1)
        is_selected = selected[places] == token_idx
    else:
        is_selected = np.zeros(len(token_idx), np.bool_)
    if not is_selected.all():
        token_idx, group = token_idx[is_selected], group[is_selected]
    ordered = _in_order(token_idx, group, names)
    # an example and a token of it may carry the same value, which then counts once
    is_repeated = ordered.token_idx[1:] == ordered.token_idx[:-1]
    if is_repeated.any():
        pairs = np.unique(np.stack([ordered.token_idx, ordered.group]), axis=1)
        ordered = Grouped(pairs[0], pairs[1], names)
    return ordered


def tokens_by_id(
    connection: duckdb.DuckDBPyConnection, run: str, selection: str, of: str, least: int
) -> Grouped:
    """The tokens of a selection by token id: their own (``input``), or that of the ``next``.

    Tokens without one are left out, and those of ids that occur less often than ``least``.
    """
    import numpy as np

    found = _selected(connection, run, selection, f", {_TOKEN_IDS[of]} as token_id")
    ids = np.ma.filled(np.ma.asarray(found["token_id"]).astype(np.int64), -1)
    names, group, counts = np.unique(ids, return_inverse=True, return_counts=True)
    is_kept = (names >= 0) & (counts >= least)
    numbers = np.cumsum(is_kept) - 1
    has_id = is_kept[group]
    return _in_order(found["token_idx"][has_id], numbers[group[has_id]], names[is_kept])


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
    connection: duckdb.DuckDBPyConnection, run: str, selection: str, also: str = ""
) -> Mapping[str, NDArray[Any]]:
    """The tokens of a selection: ``token_idx``, and what else is asked for."""
    import numpy as np

    columns = _fetch(connection, _TOKENS.format(also=also), {"run": run})
    chosen = _fetch(connection, _SELECTED, {"run": run, "selection": selection})
    is_chosen = np.isin(columns["example_id"], chosen["example_id"])
    if is_chosen.all():
        return columns
    return {name: values[is_chosen] for name, values in columns.items()}


def _fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, str]
) -> Mapping[str, NDArray[Any]]:
    columns: Mapping[str, Any] = connection.execute(sql, dict(parameters)).fetchnumpy()
    return columns
