"""Which tokens of a run are counted, and what is told apart among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

_SELECTED = f"""
select tokens.token_idx
from tokens
where
    tokens.run_id = cast($run as varchar)
    and tokens.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_LABELLED = f"""
select distinct labels.token_idx, labels.value
from labels
where
    labels.run_id = cast($run as varchar)
    and labels.key = cast($key as varchar)
    and labels.token_idx in ({_SELECTED})
"""  # noqa: S608
_VOCABULARY = f"""
select
    tokens.token_idx,
    case
        when $of = 'input' then tokens.token_id
        else lead(tokens.token_id) over (partition by tokens.example_id order by tokens.position)
    end as token_id
from tokens
where tokens.run_id = cast($run as varchar) and tokens.token_idx in ({_SELECTED})
"""  # noqa: S608


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


def selected_tokens(connection: duckdb.DuckDBPyConnection, run: str, selection: str) -> Grouped:
    """The tokens of a selection, as one group."""
    import numpy as np

    found = _fetch(connection, _SELECTED, {"run": run, "split": selection})["token_idx"]
    tokens = np.sort(found)
    return Grouped(tokens, np.zeros(len(tokens), np.int64), np.array([selection], dtype=object))


def labelled_tokens(
    connection: duckdb.DuckDBPyConnection, run: str, selection: str, key: str
) -> Grouped:
    """The tokens of a selection by their values of a label, of a run, an example or a token."""
    import pandas as pd

    given = {"run": run, "split": selection, "key": key}
    found = _fetch(connection, _LABELLED, given)
    group, names = pd.factorize(found["value"])
    return _in_order(found["token_idx"], group, names)


def tokens_by_id(
    connection: duckdb.DuckDBPyConnection, run: str, selection: str, of: str, least: int
) -> Grouped:
    """The tokens of a selection by token id: their own (``input``), or that of the ``next``.

    Tokens without one are left out, and those of ids that occur less often than ``least``.
    """
    import numpy as np

    found = _fetch(connection, _VOCABULARY, {"run": run, "split": selection, "of": of})
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

    order = np.argsort(tokens, kind="stable")
    return Grouped(tokens[order], group[order].astype(np.int64), names)


def _fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, str]
) -> Mapping[str, NDArray[Any]]:
    columns: Mapping[str, Any] = connection.execute(sql, dict(parameters)).fetchnumpy()
    return columns
