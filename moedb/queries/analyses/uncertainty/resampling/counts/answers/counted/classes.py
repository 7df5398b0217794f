"""Which experts tokens of a class choose, and which class is an expert's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer, over
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.rows import Beside
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.usage import (
    tokens_of,
    usage_of,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

    Columns = dict[str, NDArray[np.float64]]


def routing_by_class(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the tokens of classes, and those that chose an expert."""
    import numpy as np

    side.read(("class_routing", "class_sizes", "expert_usage", "selection_sizes"))
    n_experts = {each.layer: each.n_experts for each in side.layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        classes, class_of = np.unique(given["value"].to_numpy(), return_inverse=True)
        expert_of = given["expert"].to_numpy().astype(np.int64)
        n, names = n_experts[layer], classes.tolist()
        usage = usage_of(side, layer, list(range(n)))
        sizes = Beside(side.counts_at("class_sizes", None), {"value": names})
        routed = _routed(side, layer, names, n)
        rows = class_of, expert_of

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            shape = len(names), n, len(weights)
            counts = {name: of.reshape(shape) for name, of in routed.drawn(weights).items()}
            n_tokens = sizes.drawn(weights)["n_tokens"]
            frequency = over(usage.drawn(weights)["n_decisions"], tokens_of(side, weights))
            rate = over(counts["n_decisions"], n_tokens[:, None])
            # a class that a draw has no token of has no row
            everyone = np.where(n_tokens[:, None] > 0, frequency, np.nan)
            found = {
                "rate": rate,
                "share": _of_all(counts["n_decisions"]),
                "weight_share": _of_all(counts["weight"]),
                "frequency": everyone,
                "lift": over(rate, everyone),
                "n_tokens": np.broadcast_to(n_tokens[:, None], shape),
            }
            return {name: of[rows].T for name, of in found.items()}

        return Answer(6 * len(names) * n, ask)

    return at_layer


def expert_specialization(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count for each class the tokens that chose an expert."""
    import numpy as np

    side.read(("class_routing",))
    n_experts = {each.layer: each.n_experts for each in side.layers}
    names = side.class_values

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        experts = given["expert"].to_numpy().astype(np.int64)
        routed = _routed(side, layer, names, n_experts[layer])

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            shape = len(names), n_experts[layer], len(weights)
            counts = routed.drawn(weights)["n_decisions"].reshape(shape)
            of_classes = counts.sum(axis=1)
            return {name: of[experts].T for name, of in _columns(counts, of_classes).items()}

        return Answer(4 * len(names) * n_experts[layer], ask)

    return at_layer


def _columns(counts: "NDArray[np.float64]", of_classes: "NDArray[np.float64]") -> "Columns":
    """The columns of the query, each (expert, draw).

    Parameters
    ----------
    counts
        (class, expert, draw): tokens.
    of_classes
        (class, draw): their decisions at the layer.
    """
    import numpy as np

    shares = over(counts, counts.sum(axis=0))
    top = counts.argmax(axis=0)[None]
    exclusivity = np.take_along_axis(shares, top, axis=0)[0]
    class_shares = over(of_classes, of_classes.sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy = np.where(shares == 0, 0, shares * np.log2(1 / shares)).sum(axis=0)
        n_values = (of_classes > 0).sum(axis=0)
        normalized = np.where(n_values > 1, entropy / np.log2(n_values), np.nan)
        pmi = np.log2(exclusivity / np.take_along_axis(class_shares, top[0], axis=0))
    return {
        "n_decisions": counts.sum(axis=0),
        "exclusivity": exclusivity,
        "conditional_entropy": entropy,
        "normalized_entropy": normalized,
        "pmi": pmi,
    }


def _routed(side: "OfRun", layer: int, names: "list[str]", n_experts: int) -> Beside:
    """What clusters add to each class and expert, (class x expert,)."""
    wanted: dict[str, list[Any]] = {
        "value": [name for name in names for _ in range(n_experts)],
        "layer": [layer] * (len(names) * n_experts),
        "expert": list(range(n_experts)) * len(names),
    }
    return Beside(side.counts_at("class_routing", layer), wanted)


def _of_all(counts: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(class, expert, draw): the share of each expert of its class."""
    return over(counts, counts.sum(axis=1, keepdims=True))
