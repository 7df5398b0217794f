"""How many experts are active in most examples of drawn clusters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import (
    Answer,
    cells_by_cluster,
    drawn_cells,
    over,
)
from moedb.queries.analyses.uncertainty.resampling.counts.of_examples import EXAMPLE_USAGE
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

_WHOLE_EXAMPLES = f"""
select distinct tokens.example_id
from tokens
where tokens.run_id = cast($run as varchar) and tokens.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_TOKENS = f"""
select tokens.token_idx, tokens.example_id
from tokens
join examples using (run_id, example_id)
where
    tokens.run_id = cast($run as varchar)
    and tokens.example_id in {SELECTED_EXAMPLES}
    and tokens.position = coalesce(cast($position as integer), examples.n_tokens - 1)
"""  # noqa: S608
_OF_TOKENS = f"""
with in_scope as ({_TOKENS})

select in_scope.example_id, routing.layer, routing.expert, 1 as n_decisions
from routing
join in_scope using (token_idx)
where routing.run_id = cast($run as varchar)
"""  # noqa: S608


def active_experts(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the examples of clusters that experts are active in, and their decisions."""
    import numpy as np

    if values["scope"] == "example":
        decisions, of_decisions = side.added(EXAMPLE_USAGE)
        _, of_examples = side.added(_WHOLE_EXAMPLES)
    else:
        position = values["position"]
        decisions, of_decisions = side.added(_OF_TOKENS, position=position)
        _, of_examples = side.added(_TOKENS, position=position)
    n_examples = np.bincount(of_examples, minlength=side.n_drawn).astype(np.float64)

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        n_experts = int(given["n_experts"][0].as_py())
        here = decisions["layer"] == layer
        experts, clusters = decisions["expert"][here], of_decisions[here]
        # an example chooses an expert in as many rows as it has tokens in scope that do, one
        examples = decisions["example_id"][here]
        shape = n_experts, side.n_drawn
        _, first = np.unique(np.stack([examples, experts]), axis=1, return_index=True)
        active = cells_by_cluster(np.ones(len(first)), experts[first], clusters[first], shape)
        taken = cells_by_cluster(decisions["n_decisions"][here], experts, clusters, shape)

        def ask(weights: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
            n = weights @ n_examples
            n_active, n_taken = drawn_cells(active, weights), drawn_cells(taken, weights)
            total = n_taken.sum(axis=0)
            found = {"n_examples": n, "most": over(n_active.max(axis=0), n)}
            for percent in (50, 90):
                # whole numbers: 0.9 * n in floating point may miss exactly 90 %
                is_in = (100 * n_active >= percent * n) & (n_active > 0)
                found[f"experts_{percent}"] = np.where(n > 0, is_in.sum(axis=0), np.nan)
                found[f"share_{percent}"] = over((n_taken * is_in).sum(axis=0), total)
            return {name: of[:, None] for name, of in found.items()}

        return Answer(2 * n_experts, ask)

    return at_layer
