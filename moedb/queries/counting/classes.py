"""How often the tokens with each value of a label choose each expert, or two of them."""

from __future__ import annotations

from functools import partial
from itertools import chain
from math import prod
from typing import TYPE_CHECKING

from moedb.queries.counting.decisions.layers import is_rolled_up, layers_of, slabs_of
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.decisions.rows import Part, Rows, joined
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.decisions.workspace import scratch
from moedb.queries.counting.tokens import labelled_tokens
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.stretches import Stretch
    from moedb.queries.counting.tokens import Grouped
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


_MOST_CELLS = 1 << 24
"""Cells of a table (value, expert, expert) of all layers that is held in memory."""


def class_routing(
    connection: duckdb.DuckDBPyConnection,
    run: RunSnapshot,
    selection: str,
    key: str,
    weighted: bool = True,
) -> Rows:
    """Count as the view ``class_routing`` does, its columns from ``value`` on.

    Unless ``weighted``, weights of decisions are not read, and there is no such column; else they
    are summed in double precision. A label of examples or of the run is counted from the routing
    of examples where that is a fraction of the decisions.
    """
    import numpy as np

    given = {"run": run.run_id, "key": key}
    if is_rolled_up(run) and not connection.execute(_ON_TOKENS, given).fetchall():
        found = connection.execute(_OF_EXAMPLES, {**given, "split": selection}).fetchnumpy()
        return dict(found)
    tokens = labelled_tokens(connection, run, selection, key)
    n_values = len(tokens.names)
    shapes = [(len(layers), n_values, layers[0].n_experts) for layers in slabs_of(run)]
    counts = [np.zeros(shape, np.int64) for shape in shapes]
    weights = [np.zeros(shape) for shape in shapes]
    columns = ("expert", "weight") if weighted else ("expert",)
    for of_stretch in each_stretch(run, partial(_by_group, tokens), columns):
        for place, (n, weight) in enumerate(of_stretch):
            counts[place] += n
            weights[place] += weight
    parts: list[Part] = []
    for layer, n, weight in zip(layers_of(run), chain(*counts), chain(*weights), strict=True):
        value, expert = n.nonzero()
        part = {
            "value": tokens.names[value],
            "layer": layer.layer,
            "expert": expert,
            "n_decisions": n[value, expert],
        }
        parts.append(part | {"weight": weight[value, expert]} if weighted else part)
    names = ("value", "layer", "expert", "n_decisions")
    return joined((*names, "weight") if weighted else names, parts)


def class_sizes(of_classes: Rows, run: RunSnapshot) -> Rows:
    """Count as the view ``class_sizes`` does, its columns from ``value`` on.

    Parameters
    ----------
    of_classes
        What :func:`class_routing` counted. Every token of a class chooses as many experts at each
        layer, so that one layer tells how many they are.
    run
        The run.

    Raises
    ------
    UnorderedError
        If the run has no layers.
    """
    import numpy as np

    layers = layers_of(run)
    if not layers:
        raise UnorderedError
    at_first = np.asarray(of_classes["layer"]) == layers[0].layer
    values = np.asarray(of_classes["value"])[at_first]
    names, number = np.unique(values.astype(object), return_inverse=True)
    decisions = np.zeros(len(names), np.int64)
    np.add.at(decisions, number, np.asarray(of_classes["n_decisions"])[at_first])
    return {"value": names, "n_tokens": decisions // layers[0].top_k}


def class_pairs(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, key: str
) -> Rows:
    """Count as the view ``class_pairs`` does, its columns from ``value`` on.

    Raises
    ------
    UnorderedError
        If the label has too many values for tables of all pairs, or the run is not in order.
    """
    import numpy as np

    tokens = labelled_tokens(connection, run, selection, key)
    shapes = [
        (len(layers), len(tokens.names), layers[0].n_experts, layers[0].n_experts)
        for layers in slabs_of(run)
    ]
    if sum(prod(shape) for shape in shapes) > _MOST_CELLS:
        raise UnorderedError
    pairs = [np.zeros(shape, np.int64) for shape in shapes]
    for of_stretch in each_stretch(run, partial(_pairs_by_group, tokens)):
        for place, counted in enumerate(of_stretch):
            pairs[place] += counted
    parts: list[Part] = []
    for layer, of_layer in zip(layers_of(run), chain(*pairs), strict=True):
        # the expert of the smaller rank need not be that of the smaller index
        counts = of_layer + of_layer.swapaxes(1, 2)
        value, a, b = np.triu(counts, 1).nonzero()
        parts.append(
            {
                "value": tokens.names[value],
                "layer": layer.layer,
                "expert_a": a,
                "expert_b": b,
                "n_both": counts[value, a, b],
            }
        )
    return joined(("value", "layer", "expert_a", "expert_b", "n_both"), parts)


def _pairs_by_group(tokens: Grouped, stretch: Stretch) -> list[NDArray[np.int64]]:
    """For each slab (layer, group, expert, expert): those of smaller and of larger rank."""
    import numpy as np

    _, groups = tokens.within(stretch.first_token, stretch.n_tokens)
    n_groups = len(tokens.names)
    found = []
    for slab in tokens.chosen_by(stretch):
        n_layers, n_experts = len(slab.layers), slab.n_experts
        first = np.arange(n_layers, dtype=np.int32)[:, None] * np.int32(n_groups)
        by_rank = slab.experts.transpose(2, 0, 1)
        experts = scratch("experts by rank", by_rank.shape, np.int32)
        np.copyto(experts, by_rank)
        rows = scratch("rows by rank", by_rank.shape, np.int32)
        np.add(experts, (groups.astype(np.int32) + first) * np.int32(n_experts), out=rows)
        table = n_layers * n_groups * n_experts, n_experts
        counts = np.zeros(table, np.int64)
        # every pair of ranks is r and r + apart for one distance
        for apart in range(1, slab.top_k):
            counts += contingency_table(rows[:-apart], experts[apart:], table)
        found.append(counts.reshape(n_layers, n_groups, n_experts, n_experts))
    return found


def _by_group(
    tokens: Grouped, stretch: Stretch
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each slab (layer, group, expert): how often it is chosen, and the sum of weights."""
    import numpy as np

    _, groups = tokens.within(stretch.first_token, stretch.n_tokens)
    n_groups = len(tokens.names)
    found = []
    for slab in tokens.chosen_by(stretch):
        n_layers = len(slab.layers)
        first = np.arange(n_layers, dtype=np.int32)[:, None] * np.int32(n_groups)
        rows = scratch("rows", slab.experts.shape, np.int32)
        np.copyto(rows, (groups.astype(np.int32) + first)[:, :, None])
        table = n_layers * n_groups, slab.n_experts
        shape = n_layers, n_groups, slab.n_experts
        n = contingency_table(rows, slab.experts, table)
        weight = np.zeros(table)
        if "weight" in slab.columns:
            weight = contingency_table(rows, slab.experts, table, slab.columns["weight"])
        found.append((n.reshape(shape), weight.reshape(shape)))
    return found
