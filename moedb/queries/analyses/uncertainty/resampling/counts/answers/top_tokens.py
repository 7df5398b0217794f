"""How often tokens of drawn clusters choose the experts that they were named for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import (
    Answer,
    cells_by_cluster,
    drawn_cells,
    over,
)
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

_SIZES = f"""
select examples.example_id, examples.n_tokens
from examples
where examples.run_id = cast($run as varchar) and examples.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_USED = f"""
select example_routing.example_id, example_routing.expert, example_routing.n_decisions
from example_routing
where
    example_routing.run_id = cast($run as varchar)
    and example_routing.layer = cast($layer as integer)
    and example_routing.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_SEEN = f"""
select tokens.example_id, tokens.token_id, count(*) as n
from tokens
where
    tokens.run_id = cast($run as varchar)
    and tokens.example_id in {SELECTED_EXAMPLES}
    and tokens.token_id in ({{ids}})
group by tokens.example_id, tokens.token_id
"""  # noqa: S608
_CHOSEN = f"""
select tokens.example_id, tokens.token_id, routing.expert, count(*) as n
from routing
join tokens using (run_id, token_idx)
where
    routing.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and tokens.example_id in {SELECTED_EXAMPLES}
    and tokens.token_id in ({{ids}})
group by tokens.example_id, tokens.token_id, routing.expert
"""  # noqa: S608


def top_tokens(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the occurrences of tokens in clusters, and those that chose an expert.

    Which tokens are the first of an expert is not asked again: the columns are of those that the
    query named.
    """
    import numpy as np

    sizes, of_sizes = side.added(_SIZES)
    n_tokens = np.bincount(of_sizes, sizes["n_tokens"], side.n_drawn)

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        expert = given["expert"].to_numpy().astype(np.int64)
        token = given["token_id"].to_numpy().astype(np.int64)
        ids, of_row = np.unique(token, return_inverse=True)
        listed = ", ".join(str(number) for number in ids.tolist())
        seen, of_seen = side.added(_SEEN.format(ids=listed))
        chosen, of_chosen = side.added(_CHOSEN.format(ids=listed), layer=layer)
        used, of_used = side.added(_USED, layer=layer)
        width = int(max(expert.max(), chosen["expert"].max(initial=0))) + 1
        cell = of_row * width + expert
        found = np.searchsorted(ids, chosen["token_id"]) * width + chosen["expert"]
        cells, of_cell = np.unique(cell, return_inverse=True)
        place = np.searchsorted(cells, found).clip(max=len(cells) - 1)
        is_asked = cells[place] == found
        on_both = cells_by_cluster(
            chosen["n"][is_asked], place[is_asked], of_chosen[is_asked], (len(cells), side.n_drawn)
        )
        of_id = np.searchsorted(ids, seen["token_id"].astype(np.int64))
        on_token = cells_by_cluster(seen["n"], of_id, of_seen, (len(ids), side.n_drawn))
        experts, of_expert = np.unique(expert, return_inverse=True)
        own = np.isin(used["expert"], experts)
        on_expert = cells_by_cluster(
            used["n_decisions"][own],
            np.searchsorted(experts, used["expert"][own]),
            of_used[own],
            (len(experts), side.n_drawn),
        )

        def ask(weights: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
            n_token = drawn_cells(on_token, weights)[of_row]
            rate = over(drawn_cells(on_both, weights)[of_cell], n_token)
            frequency = over(drawn_cells(on_expert, weights)[of_expert], weights @ n_tokens)
            lift = over(rate, frequency)
            return {"n_token": n_token.T, "rate": rate.T, "lift": lift.T}

        return Answer(len(cell) * 4, ask)

    return at_layer
