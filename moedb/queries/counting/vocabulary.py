"""How often the occurrences of token ids choose each expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.counting.decisions.held import hold_experts
from moedb.queries.counting.decisions.layers import layers_of
from moedb.queries.counting.decisions.rows import Part, Rows, joined
from moedb.queries.counting.decisions.tables import contingency_table, places_by_group
from moedb.queries.counting.decisions.workspace import scratch
from moedb.queries.counting.tokens import tokens_by_id

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.layers import Layer
    from moedb.store.reading.snapshot import RunSnapshot

_BLOCK = 64
"""Token ids of which the largest value is looked for first."""


@dataclass(frozen=True)
class Leading:
    """The rows of each expert that are wanted: the first ``n``, and those that tie with the last.

    Attributes
    ----------
    by
        ``count`` for the largest numbers of decisions, ``lift`` for the largest shares of a token
        id's occurrences.
    n
        How many.
    """

    by: str
    n: int


def vocabulary_routing(
    connection: duckdb.DuckDBPyConnection,
    run: RunSnapshot,
    selection: str,
    of: str,
    least: int,
    leading: Leading | None = None,
) -> Rows:
    """Count as the view ``vocabulary_routing`` does, its columns from ``token_id`` on.

    Token ids that occur less often than ``least`` are left out, and with ``leading`` the rows that
    are not among the first of their expert.

    Raises
    ------
    UnorderedError
        If the run is too large to be held in memory, or not in order.
    """
    tokens = _tokens(connection, run, selection, of, least)

    def of_layer(layer: Layer, experts: NDArray[np.int32], table: NDArray[np.int32]) -> Part:
        token, expert = _wanted(table, tokens.n_token, leading)
        return {
            "token_id": tokens.token_id[token],
            "layer": layer.layer,
            "expert": expert,
            "n_decisions": table[token, expert],
            "first_token_idx": tokens.first(experts, token, expert),
        }

    parts = _each_layer(run, tokens, of_layer)
    return joined(("token_id", "layer", "expert", "n_decisions", "first_token_idx"), parts)


def vocabulary_usage(
    connection: duckdb.DuckDBPyConnection,
    run: RunSnapshot,
    selection: str,
    of: str,
    least: int,
) -> Rows:
    """Count as the view ``vocabulary_usage`` does, its columns from ``n_token`` on.

    Token ids that occur less often than ``least`` are left out.

    Raises
    ------
    UnorderedError
        If the run is too large to be held in memory, or not in order.
    """
    import numpy as np

    tokens = _tokens(connection, run, selection, of, least)
    n_token, starts, number = np.unique(tokens.n_token, return_index=True, return_inverse=True)

    def of_layer(layer: Layer, experts: NDArray[np.int32], table: NDArray[np.int32]) -> Part:
        shape = len(n_token), layer.n_experts
        # no more decisions than four bytes can count are ever held
        used = np.add.reduceat(table, starts, axis=0) if len(starts) else np.zeros(shape, np.int32)
        # of experts that are chosen as often the first is taken
        favourite = table.argmax(axis=1)
        most = np.take_along_axis(table, favourite[:, None], axis=1)
        favoured = contingency_table(number, favourite, shape, most).astype(np.int64)
        of_tokens, expert = used.nonzero()
        return {
            "n_token": n_token[of_tokens],
            "layer": layer.layer,
            "expert": expert,
            "n_decisions": used[of_tokens, expert],
            "n_favoured": favoured[of_tokens, expert],
        }

    parts = _each_layer(run, tokens, of_layer)
    return joined(("n_token", "layer", "expert", "n_decisions", "n_favoured"), parts)


@dataclass(frozen=True)
class _Tokens:
    """The occurrences of token ids, id by id, rare ones first.

    Attributes
    ----------
    token_idx
        (occurrence,): the tokens, ascending within an id.
    starts
        (token id + 1,): where the occurrences of each id begin.
    token_id, n_token
        (token id,): the ids, and how often they occur.
    """

    token_idx: NDArray[np.int64]
    starts: NDArray[np.int32]
    token_id: NDArray[np.int64]
    n_token: NDArray[np.int64]

    def numbers(self, top_k: int) -> NDArray[np.int32]:
        """(occurrence, rank): the place of its id in ``token_id``."""
        import numpy as np

        n_ids = len(self.token_id)
        return np.repeat(np.arange(n_ids, dtype=np.int32), self.n_token * top_k).reshape(-1, top_k)

    def first(
        self, experts: NDArray[np.int32], number: NDArray[np.int64], expert: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The first occurrence of each token id that chooses the expert beside it."""
        import numpy as np

        begin, end = self.starts[number], self.starts[number + 1]
        found = np.full(len(number), -1, np.int64)
        pending, step = np.arange(len(number)), 8
        while len(pending):
            # most choose it soon; those that do not are looked for farther on
            places = begin[pending, None] + np.arange(step)
            inside = places < end[pending, None]
            chosen = experts[np.where(inside, places, 0)] == expert[pending, None, None]
            hits = chosen.any(axis=2) & inside
            is_found = hits.any(axis=1)
            found[pending[is_found]] = places[is_found, hits[is_found].argmax(axis=1)]
            begin[pending] += step
            pending, step = pending[~is_found], min(4 * step, 4096)
        return self.token_idx[found]


def _tokens(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, of: str, least: int
) -> _Tokens:
    import numpy as np

    grouped = tokens_by_id(connection, run, selection, of, least)
    n_token = np.bincount(grouped.group, minlength=len(grouped.names))
    by_number = np.argsort(n_token, kind="stable")
    place = np.empty(len(by_number), np.int32)
    place[by_number] = np.arange(len(by_number))
    # id by id, so that neighbours are counted in neighbouring cells
    order, starts = places_by_group(place[grouped.group], len(place))
    names = grouped.names.astype(np.int64)
    return _Tokens(grouped.token_idx[order], starts, names[by_number], n_token[by_number])


def _each_layer(
    run: RunSnapshot,
    tokens: _Tokens,
    count: Callable[[Layer, NDArray[np.int32], NDArray[np.int32]], Part],
) -> Iterator[Part]:
    """Count the decisions of each layer, several layers at once.

    Parameters
    ----------
    run, tokens
        The run, and what is counted of it.
    count
        Takes a layer, its experts (occurrence, rank), and the table (token id, expert) of how
        often each is chosen.
    """
    import numpy as np

    held = hold_experts(run)
    rows = held.rows_of(tokens.token_idx)
    # one for all layers, as it takes longer to fill than to count by
    numbers = {top_k: tokens.numbers(top_k) for top_k in {of.top_k for of in layers_of(run)}}

    def counted(layer: Layer) -> Part:
        of_layer = held.experts[layer.layer]
        chosen = scratch("chosen", (len(rows), layer.top_k), of_layer.dtype)
        # with a mode that cannot fail numpy writes there at once
        np.take(of_layer, rows, axis=0, out=chosen, mode="clip")
        experts = scratch("experts", chosen.shape, np.int32)
        np.copyto(experts, chosen)
        shape = len(tokens.token_id), layer.n_experts
        out = scratch("table", shape, np.int32)
        table = contingency_table(numbers[layer.top_k], experts, shape, out=out)
        return count(layer, experts, table)

    return side_by_side(partial(counted, layer) for layer in layers_of(run))


def _wanted(
    table: NDArray[np.int32], n_token: NDArray[np.int64], leading: Leading | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells of (token id, expert) that are wanted: the ids, and the experts."""
    import numpy as np

    if leading is None:
        token, expert = table.nonzero()
        return token, expert
    values = table if leading.by == "count" else table / n_token[:, None]
    n, (n_ids, n_experts) = leading.n, table.shape
    lowest = np.zeros(n_experts, values.dtype)
    blocks = np.maximum.reduceat(values, np.arange(0, n_ids, _BLOCK), axis=0) if n_ids else values
    if len(blocks) >= n:
        # n blocks have a value as large as that, so the n-th largest is no smaller
        lowest = np.sort(blocks, axis=0)[-n]
    token, expert = ((values >= lowest) & (table > 0)).nonzero()
    reached = values[token, expert]
    order = np.lexsort((-reached, expert))
    token, expert, reached = token[order], expert[order], reached[order]
    begin = np.searchsorted(expert, np.arange(n_experts + 1))
    last = np.minimum(begin[:-1] + n, begin[1:]) - 1
    is_leading = reached >= reached[last.take(expert)] if len(expert) else np.zeros(0, np.bool_)
    return token[is_leading], expert[is_leading]
