"""How often the occurrences of each token id choose each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moedb.queries.counting.blocks import hold_experts, layers_of
from moedb.queries.counting.rows import Part, Rows, joined
from moedb.queries.counting.tokens import tokens_by_id

if TYPE_CHECKING:
    import duckdb

    from moedb.store.reading.snapshot import RunSnapshot


def vocabulary_routing(
    connection: duckdb.DuckDBPyConnection,
    run: RunSnapshot,
    selection: str,
    of: str,
    least: int,
) -> Rows:
    """Count as the view ``vocabulary_routing`` does, its columns from ``token_id`` on.

    Token ids that occur less often than ``least`` are left out.

    Raises
    ------
    UnorderedError
        If the run is too large to be held in memory, or not in order.
    """
    import numpy as np

    tokens = tokens_by_id(connection, run.run_id, selection, of, least)
    held = hold_experts(run)
    # token by token id, so that neighbours are counted in neighbouring cells
    order = np.argsort(tokens.group, kind="stable")
    group, token_idx = tokens.group[order], tokens.token_idx[order]
    rows = held.rows_of(token_idx)
    names = tokens.names.astype(np.int32)
    parts: list[Part] = []
    for layer in layers_of(run):
        cells = held.experts[layer.layer][rows] + (group * layer.n_experts)[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(names) * layer.n_experts)
        first = np.empty(len(counts), np.int64)
        # of several writes to a place the last one stays
        first[cells[::-1].ravel()] = np.repeat(token_idx[::-1], layer.top_k)
        (used,) = counts.nonzero()
        token_id, expert = np.divmod(used, layer.n_experts)
        parts.append(
            {
                "token_id": names[token_id],
                "layer": np.full(len(used), layer.layer, np.int32),
                "expert": expert.astype(np.int32),
                "n_decisions": counts[used],
                "first_token_idx": first[used],
            }
        )
    return joined(("token_id", "layer", "expert", "n_decisions", "first_token_idx"), parts)
