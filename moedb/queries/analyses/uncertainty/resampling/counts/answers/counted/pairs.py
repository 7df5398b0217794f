"""Which experts are chosen together, of one layer or of two."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer, over
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.rows import Beside
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.usage import (
    tokens_of,
    usage_of,
)
from moedb.queries.analyses.uncertainty.resampling.counts.of_pairs import chances_of_pairs
from moedb.queries.counting.decisions.layers import layers_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.counting.decisions.layers import Layer
    from moedb.queries.questions.parameters import Value

    Columns = dict[str, NDArray[np.float64]]

_ALIGNED = "rank-aligned"


def co_activation(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count tokens that chose both experts of a pair."""
    return _of_a_layer(side, "expert_pairs", "n_both")


def co_activation_adjacent(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count tokens that chose both experts of a pair next to each other in rank."""
    return _of_a_layer(side, "adjacent_pairs", "n_adjacent")


def _of_a_layer(side: "OfRun", view: str, counted: str) -> "Answers":
    import numpy as np

    side.read((view, "expert_usage"))
    layers = {each.layer: each for each in side.layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        n_experts, top_k = layers[layer].n_experts, layers[layer].top_k
        keys = ("layer", "expert_a", "expert_b")
        pairs = Beside(side.counts_at(view, layer), {key: given[key].to_pylist() for key in keys})
        a, b = (given[key].to_numpy().astype(np.int64) for key in keys[1:])
        usage = usage_of(side, layer, list(range(n_experts)))

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            n_both, n = pairs.drawn(weights)[counted], usage.drawn(weights)["n_decisions"]
            expected = chances_of_pairs(n.T, top_k, a, b).T
            if view == "adjacent_pairs":
                expected = expected * 2 / top_k
            of_a, of_b = n[a], n[b]
            return {
                "p_b_given_a": over(n_both, of_a, 0).T,
                "p_a_given_b": over(n_both, of_b, 0).T,
                "jaccard": over(n_both, of_a + of_b - n_both, 0).T,
                "lift": over(n_both, expected, 0).T,
            }

        return Answer(max(5 * len(a), 3 * n_experts**2), ask)

    return at_layer


def cross_layer(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count tokens that chose an expert of one layer and one of the next."""
    import numpy as np

    side.read(("layer_pairs", "rank_usage", "selection_sizes"))
    is_aligned = values["pairs"] == _ALIGNED
    counted = "n_aligned" if is_aligned else "n_both"
    layers = {each.layer: each for each in layers_of(side.run)}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        keys = ("layer", "expert", "next_expert")
        pairs = Beside(
            side.counts_at("layer_pairs", layer), {key: given[key].to_pylist() for key in keys}
        )
        following = int(given["next_layer"][0].as_py())
        expert, next_expert = (given[key].to_numpy().astype(np.int64) for key in keys[1:])
        first, second = (_by_rank(side, layers[each]) for each in (layer, following))

        def ask(weights: "NDArray[np.float64]") -> "Columns":
            n_both = pairs.drawn(weights)[counted]
            n, n_next = first(weights), second(weights)
            places = [(n.sum(axis=0), n_next.sum(axis=0))]
            if is_aligned:
                places = list(zip(n, n_next, strict=False))
            together = sum(one[expert] * other[next_expert] for one, other in places)
            return {
                "p_next_given": over(n_both, n.sum(axis=0)[expert], 0).T,
                "lift": over(n_both, together / tokens_of(side, weights), 0).T,
            }

        return Answer(4 * len(expert), ask)

    return at_layer


def _by_rank(
    side: "OfRun", layer: "Layer"
) -> "Callable[[NDArray[np.float64]], NDArray[np.float64]]":
    """From how often clusters count (draw, cluster) to decisions (rank, expert, draw)."""
    top_k, n_experts = layer.top_k, layer.n_experts
    wanted = {
        "layer": [layer.layer] * (top_k * n_experts),
        "rank": [rank for rank in range(top_k) for _ in range(n_experts)],
        "expert": list(range(n_experts)) * top_k,
    }
    ranks = Beside(side.counts_at("rank_usage", layer.layer), wanted)

    def drawn(weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
        return ranks.drawn(weights)["n_decisions"].reshape(top_k, n_experts, len(weights))

    return drawn
