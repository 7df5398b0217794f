"""How often the occurrences of each token id choose each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moedb.queries.counting.blocks import UnorderedError, layers_of, read_blocks
from moedb.queries.counting.rows import Part, Rows, joined
from moedb.queries.counting.tokens import tokens_by_id

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.store.reading.snapshot import RunSnapshot

_MOST_DECISIONS = 2**29
"""All experts of a run are held at once, a byte or two each; of a larger run the SQL counts."""


def vocabulary_routing(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, of: str
) -> Rows:
    """Count as the view ``vocabulary_routing`` does, its columns from ``token_id`` on.

    Raises
    ------
    UnorderedError
        If the run is too large to be counted in memory, too.
    """
    import numpy as np

    if run.n_rows("routing") > _MOST_DECISIONS:
        raise UnorderedError
    layers = layers_of(run)
    tokens = tokens_by_id(connection, run.run_id, selection, of)
    chosen: list[list[NDArray[np.integer]]] = [[] for _ in layers]
    groups, numbers = [], []
    for file in read_blocks(run):
        places, group = tokens.within(file.first_token, file.n_tokens)
        groups.append(group)
        numbers.append(places + file.first_token)
        for number, block in enumerate(file.blocks):
            small = np.uint8 if layers[number].n_experts <= 2**8 else np.uint16
            chosen[number].append(block.experts[places].astype(small))
    group, token_idx = np.concatenate(groups), np.concatenate(numbers)
    parts: list[Part] = []
    for number, layer in enumerate(layers):
        experts = np.concatenate(chosen[number])
        chosen[number] = []
        cells = experts + (group * layer.n_experts)[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(tokens.names) * layer.n_experts)
        first = np.empty(len(counts), np.int64)
        # of several writes to a place the last one stays
        first[cells[::-1].ravel()] = np.repeat(token_idx[::-1], layer.top_k)
        (used,) = counts.nonzero()
        token_id, expert = np.divmod(used, layer.n_experts)
        parts.append(
            {
                "token_id": tokens.names[token_id],
                "layer": layer.layer,
                "expert": expert,
                "n_decisions": counts[used],
                "first_token_idx": first[used],
            }
        )
    return joined(("token_id", "layer", "expert", "n_decisions", "first_token_idx"), parts)
