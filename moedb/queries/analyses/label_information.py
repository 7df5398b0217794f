"""How much the experts of a token tell about its label, against labels that were shuffled.

A label of examples or of the run is permuted over the examples; over clusters of them where they
are not independent, such as windows of one document. Where the label differs within a cluster it is
permuted there, which asks whether label and expert go together beyond the cluster. That null says
nothing about a label of tokens: those are permuted over the labelled tokens of each example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ParameterError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.counting.decisions.held import hold_experts
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.decisions.workspace import scratch
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.selection import SELECTED_EXAMPLES
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "label-information"
_OVER_EXAMPLES, _TOKENS_WITHIN = "examples", "tokens within examples"
_ROUNDING = 1e-9

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
_DECISIONS_OF_EXAMPLES = f"""
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
_DECISIONS_OF_TOKENS = f"""
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
    """

    units: "NDArray[np.int64]"
    examples: "NDArray[np.int64]"
    clusters: "NDArray[np.int64]"
    cluster_key: str | None
    sets: "NDArray[np.int32]"
    members: "NDArray[np.int64]"
    starts: "NDArray[np.int64]"
    on_tokens: bool

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


def mutual_information(joint: "NDArray[np.floating[Any]]") -> float:
    """Return the mutual information of rows and columns of a table of counts, in bits.

    Parameters
    ----------
    joint
        (row, column): counts, not all zero.

    Examples
    --------
    >>> import numpy as np
    >>> mutual_information(np.array([[2, 0], [0, 2]]))
    1.0
    >>> mutual_information(np.array([[2, 2], [1, 1]]))
    0.0
    """
    import numpy as np

    shares = np.asarray(joint, dtype=np.float64) / np.sum(joint)
    apart = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    held = shares > 0
    return max(0.0, float((shares[held] * np.log2(shares[held] / apart[held])).sum()))


def entropy(counts: "NDArray[np.floating[Any]]") -> float:
    """Return the entropy of a distribution given by counts, in bits.

    Examples
    --------
    >>> import numpy as np
    >>> entropy(np.array([1, 1, 2, 0]))
    1.5
    """
    import numpy as np

    held = np.asarray(counts, dtype=np.float64)
    held = held[held > 0] / held.sum()
    return float((held * np.log2(1 / held)).sum())


class LabelInformationRow(NamedTuple):
    """A row of the analysis ``label-information``."""

    layer: int
    n_decisions: int
    n_examples: int
    n_clusters: int
    n_values: int
    information: float
    label_entropy: float
    normalized: float | None
    permuted: str
    null_mean: float | None
    null_highest: float | None
    p_value: float | None


def label_information(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``label-information``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        key, run, split, layer, cluster, permutations and seed.

    Raises
    ------
    ParameterError
        If the seed or the number of permutations is negative, or no example has the label that is
        to tell the clusters.
    """
    import numpy as np

    permutations, seed = int(parameters["permutations"] or 0), int(parameters["seed"] or 0)
    for name, given in (("permutations", permutations), ("seed", seed)):
        if given < 0:
            raise ParameterError(f"{_NAME}: {name} is {given}, not 0 or more")
    run = str(parameters["run"])
    selection = {name: parameters[name] for name in ("key", "split")} | {"run": run}
    labelled = _labelled(reader, selection, parameters["cluster"])
    decisions = _decisions(reader, selection, labelled, parameters["layer"])
    # every layer meets the same permutations, whichever layers are asked for
    rng = np.random.default_rng(seed)
    null: dict[int, list[float]] = {layer: [] for chosen in decisions for layer in chosen.layers}

    def shuffled() -> "Iterator[Callable[[], dict[int, float]]]":
        for _ in range(permutations if decisions else 0):
            sets = labelled.permuted(rng)
            for chosen in decisions:
                yield partial(_information, chosen, labelled, sets)

    for found in side_by_side(shuffled()):
        for layer, information in found.items():
            null[layer].append(information)
    rows = [
        _of_layer(layer, labelled, chosen.units_at(layer), joint, null[layer])
        for chosen in decisions
        for layer, joint in chosen.by_value(labelled, labelled.sets).items()
    ]
    statement = _DECISIONS_OF_TOKENS if labelled.on_tokens else _DECISIONS_OF_EXAMPLES
    return Computed(rows, statement, (run,))


def _labelled(
    reader: "SnapshotReader", selection: "Mapping[str, Value]", cluster: "Value"
) -> Labelled:
    """Fetch which unit carries which values."""
    import numpy as np

    clusters = clusters_of(reader, str(selection["run"]), _NAME, cluster)
    ((on_tokens,),) = reader.sql(_ON_TOKENS, selection).fetchall()
    labels = reader.sql(_TOKEN_LABELS if on_tokens else _EXAMPLE_LABELS, selection).df()
    units, first, of_unit = np.unique(
        labels["unit"].to_numpy(np.int64), return_index=True, return_inverse=True
    )
    of_value, _ = labels["value"].factorize()
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
    )


def _decisions(
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
        counts = reader.sql(_DECISIONS_OF_EXAMPLES, {**asked, "layer": layer}).df()
        return _of_units(labelled, counts)
    given = {"run": selection["run"], "layer": layer}
    numbers = [int(number) for (number,) in reader.sql(_LAYERS, given).fetchall()]
    try:
        return _decisions_of_tokens(reader, str(selection["run"]), labelled, numbers)
    except UnorderedError:
        # one by one, as each may be millions of rows
        of_layers = [{**selection, "layer": number} for number in numbers]
        frames = (reader.sql(_DECISIONS_OF_TOKENS, of_layer).df() for of_layer in of_layers)
        return [chosen for frame in frames for chosen in _of_units(labelled, frame)]


def _decisions_of_tokens(
    reader: "SnapshotReader", run: str, labelled: Labelled, layers: "Sequence[int]"
) -> list[Decisions]:
    """Read what labelled tokens chose from the files, as ``_DECISIONS_OF_TOKENS`` has it.

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


def _information(
    decisions: Decisions, labelled: Labelled, sets: "NDArray[np.int32]"
) -> dict[int, float]:
    found = decisions.by_value(labelled, sets)
    return {layer: mutual_information(joint) for layer, joint in found.items()}


def _of_layer(
    layer: int,
    labelled: Labelled,
    units: "NDArray[np.int32]",
    joint: "NDArray[np.float64]",
    null: "Sequence[float]",
) -> LabelInformationRow:
    import numpy as np

    of_value = joint.sum(axis=1)
    information, label_entropy = mutual_information(joint), entropy(of_value)
    reached = sum(of_null >= information - _ROUNDING for of_null in null)
    return LabelInformationRow(
        layer=layer,
        n_decisions=int(joint.sum()),
        n_examples=len(np.unique(labelled.examples[units])),
        n_clusters=len(np.unique(labelled.clusters[units])),
        n_values=int((of_value > 0).sum()),
        information=information,
        label_entropy=label_entropy,
        normalized=information / label_entropy if label_entropy else None,
        permuted=labelled.permuted_over,
        null_mean=float(np.mean(null)) if null else None,
        null_highest=max(null) if null else None,
        p_value=(1 + reached) / (1 + len(null)) if null else None,
    )


LABEL_INFORMATION = Analysis(
    name=_NAME,
    title="Information about a label",
    answers="How much do the experts of a token tell about its label, and is it more than "
    "shuffled labels give?",
    subject="labels",
    parameters=(
        Parameter("key", "varchar", None, True, "the label's key, of a run, an example or a token"),
        RUN,
        SPLIT,
        Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
        CLUSTER,
        Parameter(
            "permutations",
            "integer",
            100,
            False,
            "how often the labels are shuffled; 0 for no p-value",
            least=0,
            most=1_000_000,
        ),
        Parameter("seed", "integer", 0, False, "the seed of the shuffling"),
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn(
            "n_decisions",
            "decisions of tokens that have the label, all ranks counted alike; a token with "
            "two values counts for both",
            "BIGINT",
        ),
        AnalysisColumn("n_examples", "examples that these tokens are in", "BIGINT"),
        AnalysisColumn(
            "n_clusters",
            "clusters of these examples; as many where they are independent of each other",
            "BIGINT",
        ),
        AnalysisColumn("n_values", "values of the label", "BIGINT"),
        AnalysisColumn("information", "I(label; expert) in bits", "DOUBLE"),
        AnalysisColumn("label_entropy", "H(label) over the decisions, in bits", "DOUBLE"),
        AnalysisColumn(
            "normalized", "information / label_entropy; null for a single value", "DOUBLE"
        ),
        AnalysisColumn(
            "permuted",
            "what is shuffled: examples, where labels of examples or of the run are permuted "
            "over the labelled examples; examples by KEY, where all examples of a cluster have "
            "the same label and the clusters are permuted; examples within KEY, where they "
            "differ and are permuted within each cluster; tokens within examples, where the "
            "key is on tokens and labels are permuted over the labelled tokens of each example",
            "VARCHAR",
        ),
        AnalysisColumn(
            "null_mean", "mean information over the permutations; null without any", "DOUBLE"
        ),
        AnalysisColumn("null_highest", "the largest information of a permutation", "DOUBLE"),
        AnalysisColumn(
            "p_value",
            "(1 + permutations that reach information) / (1 + permutations); null without any",
            "DOUBLE",
        ),
    ),
    source="moedb, plug-in estimate; p-value of a permutation test after Phipson & Smyth 2010",
    function=label_information,
    row=LabelInformationRow,
)
