"""How often the tokens with each value of a label choose each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moedb.queries.counting.blocks import layers_of, read_blocks
from moedb.queries.counting.rows import Part, Rows, joined
from moedb.queries.counting.tokens import labelled_tokens
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import duckdb

    from moedb.store.reading.snapshot import RunSnapshot

_ON_TOKENS = """
select 1
from token_labels
where token_labels.run_id = cast($run as varchar) and token_labels.key = cast($key as varchar)
limit 1
"""
_OF_EXAMPLES = f"""
with selected_values as (
    select example_values.example_id, example_values.value
    from example_values
    where
        example_values.run_id = cast($run as varchar)
        and example_values.key = cast($key as varchar)
        and example_values.example_id in {SELECTED_EXAMPLES}
)

select
    selected_values.value,
    example_routing.layer,
    example_routing.expert,
    cast(sum(example_routing.n_decisions) as bigint) as n_decisions,
    sum(example_routing.weight) as weight
from example_routing
join selected_values using (example_id)
where example_routing.run_id = cast($run as varchar)
group by selected_values.value, example_routing.layer, example_routing.expert
"""  # noqa: S608


def class_routing(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, key: str
) -> Rows:
    """Count as the view ``class_routing`` does, its columns from ``value`` on.

    Weights are summed in double precision. From format 2 on a label of examples or of the run is
    counted from the routing of examples, which is a fraction of the decisions.
    """
    import numpy as np

    given = {"run": run.run_id, "key": key}
    if run.format > 1 and not connection.execute(_ON_TOKENS, given).fetchall():
        found = connection.execute(_OF_EXAMPLES, {**given, "split": selection}).fetchnumpy()
        return dict(found)
    layers = layers_of(run)
    tokens = labelled_tokens(connection, run.run_id, selection, key)
    n_values = len(tokens.names)
    counts = [np.zeros(n_values * layer.n_experts, np.int64) for layer in layers]
    weights = [np.zeros(n_values * layer.n_experts) for layer in layers]
    for stretch in read_blocks(run, weights=True):
        places, groups = tokens.within(stretch.first_token, stretch.n_tokens)
        is_whole = np.array_equal(places, np.arange(stretch.n_tokens))
        for number, block in enumerate(stretch.blocks):
            experts, chosen = block.experts, np.asarray(block.weights)
            if not is_whole:
                experts, chosen = experts[places], chosen[places]
            n_experts = layers[number].n_experts
            cells = (experts + groups[:, None] * n_experts).ravel()
            counts[number] += np.bincount(cells, minlength=n_values * n_experts)
            weights[number] += np.bincount(cells, chosen.ravel(), n_values * n_experts)
    parts: list[Part] = []
    for layer, n, weight in zip(layers, counts, weights, strict=True):
        (cells,) = n.nonzero()
        value, expert = np.divmod(cells, layer.n_experts)
        parts.append(
            {
                "value": tokens.names[value],
                "layer": layer.layer,
                "expert": expert,
                "n_decisions": n[cells],
                "weight": weight[cells],
            }
        )
    return joined(("value", "layer", "expert", "n_decisions", "weight"), parts)
