"""Which tokens a candidate sees: those that chose the expert, or an expert of another run."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError
from moedb.experts.probing.concepts import Tokens
from moedb.queries.database import Database
from moedb.store.reading.snapshot import RunSnapshot

_CHOSEN = """
select token_idx, rank, expert
from routing
where layer = $layer
order by token_idx, rank
"""

_TOKENS = "select token_idx, example_id, position, token_id from tokens order by token_idx"


class Seen(NamedTuple):
    """Which tokens are seen, in the order of the tokens.

    Attributes
    ----------
    places
        (decision,): which of the tokens.
    ranks
        (decision,): the place of its neurons among those that the array has of the token.
    experts
        (decision,): who sees it.
    """

    places: NDArray[np.int64]
    ranks: NDArray[np.int64]
    experts: NDArray[np.int64]

    def of(self, is_used: NDArray[np.bool_]) -> "Seen":
        """What is left of it where only some tokens, (token,), are used."""
        kept = is_used[self.places]
        return Seen(self.places[kept], self.ranks[kept], self.experts[kept])


def chosen(database: Database, layer: int, tokens: Tokens) -> Seen:
    """The tokens that chose each expert of a layer.

    Parameters
    ----------
    database
        Reads the run whose experts these are.
    layer
        The layer.
    tokens
        The tokens, which may be another run's; decisions of others are left out.
    """
    found = database.sql(_CHOSEN, {"layer": layer}).arrow()
    numbers, ranks, experts = (
        found[name].to_numpy().astype(np.int64) for name in ("token_idx", "rank", "expert")
    )
    order = np.argsort(tokens.numbers, kind="stable")
    at = np.searchsorted(tokens.numbers[order], numbers)
    there = at < len(order)
    there[there] = tokens.numbers[order[at[there]]] == numbers[there]
    places = order[at[there]]
    by_place = np.argsort(places, kind="stable")
    return Seen(places[by_place], ranks[there][by_place], experts[there][by_place])


def everything(tokens: Tokens) -> Seen:
    """All tokens, seen by the one expert that every token has."""
    nothing = np.zeros(len(tokens), np.int64)
    return Seen(np.arange(len(tokens)), nothing, nothing)


def expect_same_tokens(
    database: Database, run: RunSnapshot, other_database: Database, other: RunSnapshot
) -> None:
    """Check that two runs, and what reads them, are of the same tokens.

    Raises
    ------
    UsageError
        If they are not.
    """
    here, there = (each.sql(_TOKENS).arrow() for each in (database, other_database))
    if here.equals(there):
        return
    if len(here) != len(there):
        how = f"{len(here):,} and {len(there):,}"
    else:
        differ = np.zeros(len(here), np.bool_)
        for column in here.column_names:
            mine, others = (each[column].to_numpy() for each in (here, there))
            differ |= mine != others
        how = f"{int(differ.sum()):,} of {len(here):,} differ"
    raise UsageError(
        f"runs {run.title} and {other.title} are not of the same tokens: {how}",
        "capture both from the same texts with the same options, by models of one tokenizer",
    )
