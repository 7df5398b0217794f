"""How many experts two runs chose alike for the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moedb.queries.counting.blocks import hold_experts, read_blocks
from moedb.queries.counting.rows import Part, Rows, joined
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import duckdb

    from moedb.store.reading.snapshot import RunSnapshot

_MATCHED = f"""
select tokens.token_idx, tokens_b.token_idx as token_b
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
    found = connection.execute(_MATCHED, given).fetchnumpy()
    order = np.argsort(found["token_idx"], kind="stable")
    tokens = np.asarray(found["token_idx"])[order]
    tokens_b = np.asarray(found["token_b"])[order]
    held = hold_experts(run_b)
    rows_b = held.rows_of(tokens_b)
    shared: dict[int, int] = {}
    first: dict[int, int] = {}
    for stretch in read_blocks(run):
        low, high = np.searchsorted(
            tokens, (stretch.first_token, stretch.first_token + stretch.n_tokens)
        )
        places = tokens[low:high] - stretch.first_token
        for block in stretch.blocks:
            number = block.layer.layer
            if number not in held.experts:
                continue
            one, two = block.experts[places], held.experts[number][rows_b[low:high]]
            same = one[:, :, None] == two[:, None, :]
            shared[number] = shared.get(number, 0) + int(same.sum())
            first[number] = first.get(number, 0) + int(same[:, 0, 0].sum())
    parts: list[Part] = [
        {"layer": layer, "n_shared": np.array([n]), "n_first": np.array([first[layer]])}
        for layer, n in shared.items()
        if n
    ]
    return joined(("layer", "n_shared", "n_first"), parts)
