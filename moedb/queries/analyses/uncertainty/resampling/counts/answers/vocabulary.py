"""How far token ids of drawn clusters decide which expert is chosen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import (
    Answer,
    cells_by_cluster,
    drawn_cells,
    over,
)
from moedb.queries.counting.decisions.layers import layers_of
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

_CHOSEN = f"""
with token_ids as (
    select
        tokens.token_idx,
        tokens.example_id,
        case
            when cast($of as varchar) = 'input' then tokens.token_id
            else lead(tokens.token_id) over (
                partition by tokens.example_id
                order by tokens.position
            )
        end as token_id
    from tokens
    where tokens.run_id = cast($run as varchar) and tokens.example_id in {SELECTED_EXAMPLES}
)

select token_ids.example_id, token_ids.token_id, routing.expert, count(*) as n
from routing
join token_ids using (token_idx)
where
    routing.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and token_ids.token_id is not null
group by token_ids.example_id, token_ids.token_id, routing.expert
"""  # noqa: S608


def vocabulary_specialization(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count which experts the token ids of clusters choose.

    The favourite expert of a token id, and whether it occurs often enough, is asked again.
    """
    import numpy as np

    top_k = {layer.layer: layer.top_k for layer in layers_of(side.run)}
    # a token id that a draw does not have is never counted
    least = max(int(values["min_count"] or 0), 1)

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        chosen, clusters = side.added(_CHOSEN, layer=layer, of=values["of"])
        width = int(chosen["expert"].max()) + 1
        ids = chosen["token_id"].astype(np.int64)
        cells, cell = np.unique(ids * width + chosen["expert"], return_inverse=True)
        added = cells_by_cluster(chosen["n"], cell, clusters, (len(cells), side.n_drawn))
        _, starts, of_id = np.unique(cells // width, return_index=True, return_inverse=True)
        by_expert = np.argsort(cells % width, kind="stable")
        _, first = np.unique(cells[by_expert] % width, return_index=True)

        def ask(weights: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
            n = drawn_cells(added, weights)
            n_token = np.add.reduceat(n, starts, axis=0) / top_k[layer]
            is_counted = n_token >= least
            favoured = np.where(is_counted, np.maximum.reduceat(n, starts, axis=0), 0)
            n_ids = is_counted.sum(axis=0)
            n_tokens = np.where(is_counted, n_token, 0).sum(axis=0)
            shares = favoured / np.maximum(n_token, 1)
            used = np.add.reduceat((n * is_counted[of_id])[by_expert], first, axis=0)
            found = {
                "n_tokens": n_tokens,
                "specialization": over(shares.sum(axis=0), n_ids),
                "weighted": over(favoured.sum(axis=0), n_tokens),
                "baseline": over(used.max(axis=0), n_tokens),
            }
            return {name: of[:, None] for name, of in found.items()}

        return Answer(3 * len(cells), ask)

    return at_layer
