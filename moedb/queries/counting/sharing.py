"""How many experts two runs chose alike for the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from moedb.queries.counting.decisions.held import hold_experts, smallest_type
from moedb.queries.counting.decisions.rows import Part, Rows, joined
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.held import HeldExperts
    from moedb.queries.counting.decisions.stretches import Stretch
    from moedb.store.reading.snapshot import RunSnapshot

MATCHED = f"""
select tokens.example_id, tokens.token_idx, tokens_b.token_idx as token_b
from tokens
join tokens as tokens_b
    on tokens.example_id = tokens_b.example_id
    and tokens.position = tokens_b.position
    and tokens.token_id is not distinct from tokens_b.token_id
where
    tokens.run_id = cast($run as varchar)
    and tokens_b.run_id = cast($run_b as varchar)
    and tokens.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
"""The tokens of ``$split`` that two runs have at the same position of the same example."""

T = TypeVar("T")


def shared_decisions(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, run_b: RunSnapshot, selection: str
) -> Rows:
    """Count as the view ``shared_decisions`` does, its columns from ``layer`` on.

    Raises
    ------
    UnorderedError
        If the other run is too large to be held in memory, or one is not in order.
    """
    import numpy as np

    given = {"run": run.run_id, "run_b": run_b.run_id, "split": selection}
    found = connection.execute(MATCHED, given).fetchnumpy()
    order = np.argsort(found["token_idx"], kind="stable")
    tokens = np.asarray(found["token_idx"])[order]
    tokens_b = np.asarray(found["token_b"])[order]
    shared: dict[int, int] = {}
    first: dict[int, int] = {}
    for layer, (n_shared, n_first) in each_shared(run, run_b, tokens, tokens_b, _totals):
        shared[layer] = shared.get(layer, 0) + n_shared
        first[layer] = first.get(layer, 0) + n_first
    parts: list[Part] = [
        {"layer": layer, "n_shared": np.array([n]), "n_first": np.array([first[layer]])}
        for layer, n in shared.items()
        if n
    ]
    return joined(("layer", "n_shared", "n_first"), parts)


def each_shared(
    run: RunSnapshot,
    run_b: RunSnapshot,
    tokens: NDArray[np.int64],
    tokens_b: NDArray[np.int64],
    told: Callable[[slice, NDArray[np.bool_]], T],
) -> Iterator[tuple[int, T]]:
    """Go through the layers of two runs, some of the tokens at a time.

    Parameters
    ----------
    run, run_b
        The runs.
    tokens, tokens_b
        (pair,): tokens that are the same, ascending in the first run.
    told
        Takes which pairs they are, and (pair, rank, rank in the other run) whether both chose the
        same expert.

    Yields
    ------
    A layer, and what ``told`` returns.

    Raises
    ------
    UnorderedError
        If the other run is too large to be held in memory, or one is not in order.
    """
    held = hold_experts(run_b)
    counted = partial(_shared, tokens, held.rows_of(tokens_b), held, told)
    for of_stretch in each_stretch(run, counted):
        yield from of_stretch.items()


def _totals(_: slice, same: NDArray[np.bool_]) -> tuple[int, int]:
    """The decisions that are alike, and of those the first-ranked in both."""
    import numpy as np

    return int(np.count_nonzero(same)), int(np.count_nonzero(same[:, 0, 0]))


def _shared(
    tokens: NDArray[np.int64],
    rows_b: NDArray[np.int64],
    held: HeldExperts,
    told: Callable[[slice, NDArray[np.bool_]], T],
    stretch: Stretch,
) -> dict[int, T]:
    """For each layer what is told of the pairs in a stretch."""
    import numpy as np

    low, high = np.searchsorted(
        tokens, (stretch.first_token, stretch.first_token + stretch.n_tokens)
    )
    places, rows = tokens[low:high] - stretch.first_token, rows_b[low:high]
    found = {}
    for slab in stretch.slabs:
        for layer, experts in zip(slab.layers, slab.experts, strict=True):
            if layer.layer not in held.experts:
                continue
            theirs = held.experts[layer.layer][rows]
            mine = experts[places].astype(
                np.promote_types(theirs.dtype, smallest_type(slab.n_experts))
            )
            same = mine[:, :, None] == theirs[:, None, :]
            found[layer.layer] = told(slice(low, high), same)
    return found
