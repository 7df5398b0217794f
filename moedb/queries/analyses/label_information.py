"""How much the experts of a token tell about its label, against labels that were shuffled."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ParameterError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.uncertainty.clusters import CLUSTER
from moedb.queries.analyses.uncertainty.shuffled_labels import (
    DECISIONS_OF_EXAMPLES,
    DECISIONS_OF_TOKENS,
    Decisions,
    Labelled,
    decisions_of,
    labelled_units,
)
from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "label-information"
_ROUNDING = 1e-9


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
    labelled = labelled_units(reader, selection, _NAME, parameters["cluster"])
    decisions = decisions_of(reader, selection, labelled, parameters["layer"])
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
    statement = DECISIONS_OF_TOKENS if labelled.on_tokens else DECISIONS_OF_EXAMPLES
    return Computed(rows, statement, (run,))


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
