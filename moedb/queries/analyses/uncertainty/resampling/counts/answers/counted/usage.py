"""How often experts are chosen, and how evenly."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer, over
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.rows import Beside

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

    Columns = dict[str, NDArray[np.float64]]

_REACHED = (50, 90, 99)
"""Per cent of the decisions that the most used experts reach."""


def expert_frequency(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count tokens, and those that chose an expert."""
    side.read(("expert_usage", "selection_sizes"))
    top_k = {each.layer: each.top_k for each in side.layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        experts = given["expert"].to_pylist()
        usage = usage_of(side, layer, experts)

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            frequency = over(usage.drawn(weights)["n_decisions"], tokens_of(side, weights))
            return {"frequency": frequency.T, "share": frequency.T / top_k[layer]}

        return Answer(2 * len(experts), ask)

    return at_layer


def load_balance(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the decisions of a layer's experts, and add up their router probabilities."""
    import numpy as np

    side.read(("expert_usage", "expert_mass", "selection_sizes"))
    n_experts = {each.layer: each.n_experts for each in side.layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        n = n_experts[layer]
        experts = list(range(n))
        usage = usage_of(side, layer, experts)
        masses = side.counts_at("expert_mass", layer)
        mass = Beside(masses, _at(layer, experts))

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            decisions = usage.drawn(weights)["n_decisions"]
            total = decisions.sum(axis=0)
            shares = over(decisions, total)
            probability = over(mass.drawn(weights)["probability"], tokens_of(side, weights))
            with np.errstate(invalid="ignore", divide="ignore"):
                entropy = np.where(shares == 0, 0, shares * np.log2(1 / shares)).sum(axis=0)
            places = 2 * np.arange(1, n + 1) - n - 1
            loss = n * (shares * probability).sum(axis=0)
            found = {
                "normalized_entropy": entropy / np.log2(n)
                if n > 1
                else np.full_like(total, np.nan),
                "effective_experts": 2**entropy,
                "gini": places @ np.sort(shares, axis=0) / n,
                "cv": over(decisions.std(axis=0) * n, total),
                "max_over_mean": shares.max(axis=0) * n,
                "switch_loss": loss if masses.n_cells else np.full_like(total, np.nan),
            }
            return {name: of[:, None] for name, of in found.items()}

        return Answer(4 * n, ask)

    return at_layer


def concentration(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the decisions of a layer's experts."""
    import numpy as np

    side.read(("expert_usage",))
    n_experts = {each.layer: each.n_experts for each in side.layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        tops = given["n_top"].to_numpy().astype(np.int64)
        usage = usage_of(side, layer, list(range(n_experts[layer])))

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            decisions = usage.drawn(weights)["n_decisions"]
            taken = np.cumsum(-np.sort(-decisions, axis=0), axis=0)
            total = taken[-1]
            found = {"share": over(taken[tops - 1], total).T}
            for percent in _REACHED:
                # whole numbers: 0.9 * n in floating point may miss exactly 90 %
                n = (100 * taken < percent * total).sum(axis=0) + 1.0
                reached = np.where(total > 0, n, np.nan)[:, None]
                found[f"experts_{percent}"] = np.broadcast_to(reached, (len(reached), len(tops)))
            return found

        return Answer(2 * n_experts[layer], ask)

    return at_layer


def usage_of(side: "OfRun", layer: int, experts: "list[int]") -> Beside:
    """Return what clusters add to the decisions of experts of a layer."""
    return Beside(side.counts_at("expert_usage", layer), _at(layer, experts))


def tokens_of(side: "OfRun", weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(draw,): the tokens of clusters that count so often each."""
    import numpy as np

    sizes = side.drawn("selection_sizes", None, weights).sums["n_tokens"]
    return np.asarray(sizes.sum(axis=0), np.float64)


def _at(layer: int, experts: "list[int]") -> "dict[str, list[int]]":
    return {"layer": [layer] * len(experts), "expert": experts}
