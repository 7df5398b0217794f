"""Labels and the decisions of what carries them, so that labels can be shuffled.

A label of examples or of the run is permuted over the examples; over clusters of them where they
are not independent, such as windows of one document. Where the label differs within a cluster it is
permuted there, which asks whether label and expert go together beyond the cluster. That null says
nothing about a label of tokens: those are permuted over the labelled tokens of each example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.counting.decisions.held import hold_experts
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.decisions.workspace import scratch
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_OVER_EXAMPLES, _TOKENS_WITHIN = "examples", "tokens within examples"

# A unit is what carries a label: a token where the key is on a token of the selection, else an
# example. Each has one label or several.
_ON_TOKENS = f"""
select count(*) > 0
from token_labels
where token_labels.run_id = cast($run as varchar)
    and token_labels.key = cast($key as varchar)
    and token_labels.token_idx in (
        select tokens.token_idx
        from tokens
        where tokens.run_id = cast($run as varchar) and tokens.example_id in {SELECTED_EXAMPLES}
    )
""".strip()  # noqa: S608
_TOKEN_LABELS = f"""
select distinct
    labels.token_idx as unit,
    labels.example_id,
    labels.value
from labels
where labels.run_id = cast($run as varchar)
    and labels.key = cast($key as varchar)
    and labels.example_id in {SELECTED_EXAMPLES}
order by unit, labels.value
""".strip()  # noqa: S608
_EXAMPLE_LABELS = f"""
select
    example_values.example_id as unit,
    example_values.example_id,
    example_values.value
from example_values
where example_values.run_id = cast($run as varchar)
    and example_values.key = cast($key as varchar)
    and example_values.example_id in {SELECTED_EXAMPLES}
order by unit, example_values.value
""".strip()  # noqa: S608
_LAYERS = """
select moe_layers.layer
from moe_layers
where moe_layers.run_id = cast($run as varchar)
    and (cast($layer as integer) is null or moe_layers.layer = cast($layer as integer))
order by moe_layers.layer
""".strip()
DECISIONS_OF_EXAMPLES = f"""
select
    example_routing.layer,
    example_routing.example_id as unit,
    example_routing.expert,
    example_routing.n_decisions
from example_routing
where example_routing.run_id = cast($run as varchar)
    and (cast($layer as integer) is null or example_routing.layer = cast($layer as integer))
    and example_routing.example_id in {SELECTED_EXAMPLES}
""".strip()  # noqa: S608
DECISIONS_OF_TOKENS = f"""
select
    routing.layer,
    routing.token_idx as unit,
    routing.expert
from routing
where routing.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and routing.token_idx in (
        select labels.token_idx
        from labels
        where labels.run_id = cast($run as varchar)
            and labels.key = cast($key as varchar)
            and labels.example_id in {SELECTED_EXAMPLES}
    )
""".strip()  # noqa: S608


@dataclass(frozen=True)
class Labelled:
    """The units that carry a label: examples, or tokens.

    Attributes
    ----------
    units
        (unit,): the example_id or token_idx of each, ascending.
    examples
        (unit,): its example, numbered from 0.
    clusters
        (unit,): the cluster of its example, numbered from 0.
    cluster_key
        What tells the clusters; None where each example is one.
    sets
        (unit,): which set of values it carries. With one value for each unit a set is a value.
    members
        The sets that have the first value, then those that have the second, and so on.
    starts
        (value,): where the sets of each value begin in ``members``.
    on_tokens
        Whether the units are tokens.
    values
        (value,): what each value is.
    """

    units: "NDArray[np.int64]"
    examples: "NDArray[np.int64]"
    clusters: "NDArray[np.int64]"
    cluster_key: str | None
    sets: "NDArray[np.int32]"
    members: "NDArray[np.int64]"
    starts: "NDArray[np.int64]"
    on_tokens: bool
    values: "NDArray[np.object_]"

    @cached_property
    def _set_of_cluster(self) -> "NDArray[np.int32] | None":
        """(cluster,): its set; None where the units of some cluster carry several."""
        import numpy as np

        _, first = np.unique(self.clusters, return_index=True)
        sets: NDArray[np.int32] = self.sets[first]
        return sets if (sets[self.clusters] == self.sets).all() else None

    @cached_property
    def _blocks(self) -> "NDArray[np.int64]":
        """(unit,): the block that its set is moved within."""
        return self.examples if self.on_tokens else self.clusters

    @cached_property
    def _by_block(self) -> "NDArray[np.intp]":
        """(unit,): the units of the first block, then those of the second, and so on."""
        import numpy as np

        return np.argsort(self._blocks, kind="stable")

    @property
    def permuted_over(self) -> str:
        """What is permuted, in words."""
        import numpy as np

        if self.on_tokens:
            return _TOKENS_WITHIN
        if self.cluster_key is None or len(np.unique(self.clusters)) == len(self.units):
            return _OVER_EXAMPLES
        how = "by" if self._set_of_cluster is not None else "within"
        return f"{_OVER_EXAMPLES} {how} {self.cluster_key}"

    def permuted(self, rng: "np.random.Generator") -> "NDArray[np.int32]":
        """(unit,): the sets, moved among all clusters, or among the units of each block."""
        import numpy as np

        if not self.on_tokens and self._set_of_cluster is not None:
            return rng.permutation(self._set_of_cluster)[self.clusters]
        # less than 1 is added to a whole number: no unit leaves its block
        shuffled = np.argsort(self._blocks + 0.5 * rng.random(len(self.units)))
        moved = np.empty_like(self.sets)
        moved[self._by_block] = self.sets[shuffled]
        return moved


@dataclass(frozen=True)
class Decisions:
    """What the labelled units chose at some layers, one entry for each unit, layer and expert.

    Attributes
    ----------
    layers
        The layers, each with the columns of its experts.
    rows
        (entry,): the unit, as its place in ``Labelled.units``.
    columns
        (entry,): the expert, numbered through the layers.
    counts
        (entry,): how often the unit chose it; None where that is once each.
    """

    layers: "Mapping[int, slice]"
    rows: "NDArray[np.int32]"
    columns: "NDArray[np.int32]"
    counts: "NDArray[np.float64] | None"

    def by_value(
        self, labelled: Labelled, sets: "NDArray[np.int32]"
    ) -> "dict[int, NDArray[np.float64]]":
        """Return for each layer the decisions (value, expert) where unit i carries ``sets[i]``."""
        import numpy as np

        n_columns = max(columns.stop for columns in self.layers.values())
        shape = int(labelled.members.max()) + 1, n_columns
        of_rows = scratch("sets of rows", self.rows.shape, np.int32)
        np.take(sets, self.rows, out=of_rows, mode="clip")
        of_sets = contingency_table(of_rows, self.columns, shape, self.counts)
        carried = of_sets.astype(np.float64)[labelled.members]
        joint = np.add.reduceat(carried, labelled.starts, axis=0)
        return {layer: joint[:, columns] for layer, columns in self.layers.items()}

    def units_at(self, layer: int) -> "NDArray[np.int32]":
        """The units that chose an expert of a layer, each once for every expert."""
        columns = self.layers[layer]
        is_at = (self.columns >= columns.start) & (self.columns < columns.stop)
        units: NDArray[np.int32] = self.rows[is_at]
        return units


def labelled_units(
    reader: "SnapshotReader", selection: "Mapping[str, Value]", name: str, cluster: "Value"
) -> Labelled:
    """Fetch which unit carries which values.

    Parameters
    ----------
    reader
        Reads the store.
    selection
        The parameters run, split and key.
    name
        What asks.
    cluster
        The label that tells the clusters of examples; None for that of documents, or twins.
    """
    import numpy as np

    clusters = clusters_of(reader, str(selection["run"]), name, cluster)
    ((on_tokens,),) = reader.sql(_ON_TOKENS, selection).fetchall()
    labels = reader.sql(_TOKEN_LABELS if on_tokens else _EXAMPLE_LABELS, selection).df()
    units, first, of_unit = np.unique(
        labels["unit"].to_numpy(np.int64), return_index=True, return_inverse=True
    )
    of_value, values = labels["value"].factorize()
    carried: list[list[int]] = [[] for _ in units]
    for unit, value in zip(of_unit.tolist(), of_value.tolist(), strict=True):
        carried[unit].append(value)
    numbers: dict[tuple[int, ...], int] = {}
    sets = [numbers.setdefault(tuple(found), len(numbers)) for found in carried]
    pairs = sorted((value, number) for found, number in numbers.items() for value in found)
    by_value = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    examples = labels["example_id"].to_numpy(np.int64)[first]
    _, of_example = np.unique(examples, return_inverse=True)
    return Labelled(
        units,
        of_example,
        clusters.of(examples),
        clusters.key,
        np.array(sets, dtype=np.int32),
        by_value[:, 1],
        np.unique(by_value[:, 0], return_index=True)[1],
        bool(on_tokens),
        np.asarray(values, dtype=object),
    )


def decisions_of(
    reader: "SnapshotReader",
    selection: "Mapping[str, Value]",
    labelled: Labelled,
    layer: "Value",
) -> list[Decisions]:
    """Fetch what the labelled units chose: of examples at all layers together."""
    if not len(labelled.units):
        return []
    if not labelled.on_tokens:
        asked = {name: selection[name] for name in ("run", "split")}
        counts = reader.sql(DECISIONS_OF_EXAMPLES, {**asked, "layer": layer}).df()
        return _of_units(labelled, counts)
    given = {"run": selection["run"], "layer": layer}
    numbers = [int(number) for (number,) in reader.sql(_LAYERS, given).fetchall()]
    try:
        return _decisions_of_tokens(reader, str(selection["run"]), labelled, numbers)
    except UnorderedError:
        # one by one, as each may be millions of rows
        of_layers = [{**selection, "layer": number} for number in numbers]
        frames = (reader.sql(DECISIONS_OF_TOKENS, of_layer).df() for of_layer in of_layers)
        return [chosen for frame in frames for chosen in _of_units(labelled, frame)]


def _decisions_of_tokens(
    reader: "SnapshotReader", run: str, labelled: Labelled, layers: "Sequence[int]"
) -> list[Decisions]:
    """Read what labelled tokens chose from the files, as ``DECISIONS_OF_TOKENS`` has it.

    Raises
    ------
    UnorderedError
        If they are not in order, or the run is too large to be held in memory.
    """
    import numpy as np

    reader.sql("from routing limit 0", {}).fetchall()  # its files are checked with the view
    held = hold_experts(reader.snapshot.run(run))
    places = held.rows_of(labelled.units)
    decisions = []
    rows: NDArray[np.int32] | None = None
    for layer in layers:
        experts = held.experts[layer][places].astype(np.int32)
        n_tokens, top_k = experts.shape
        if rows is None or len(rows) != experts.size:
            rows = np.repeat(np.arange(n_tokens, dtype=np.int32), top_k)
        columns = {layer: slice(0, int(experts.max()) + 1)}
        decisions.append(Decisions(columns, rows, experts.ravel(), None))
    return decisions


def _of_units(labelled: Labelled, counts: "pd.DataFrame") -> list[Decisions]:
    """The rows that are of labelled units; none where there are none."""
    import numpy as np

    units = counts["unit"].to_numpy(np.int64)
    rows = np.searchsorted(labelled.units, units)
    has_label = labelled.units[np.minimum(rows, len(labelled.units) - 1)] == units
    rows = rows[has_label].astype(np.int32)
    if not len(rows):
        return []
    experts = counts["expert"].to_numpy(np.int32)[has_label]
    layers, place = np.unique(counts["layer"].to_numpy()[has_label], return_inverse=True)
    n_experts = int(experts.max()) + 1
    columns = {
        int(layer): slice(number * n_experts, (number + 1) * n_experts)
        for number, layer in enumerate(layers)
    }
    numbered = (place * n_experts + experts).astype(np.int32)
    if labelled.on_tokens:
        return [Decisions(columns, rows, numbered, None)]
    n_decisions = counts["n_decisions"].to_numpy(np.float64)[has_label]
    return [Decisions(columns, rows, numbered, n_decisions)]
