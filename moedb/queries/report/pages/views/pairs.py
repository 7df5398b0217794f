"""Which experts are chosen together, in a layer and in the next one, and which are alike."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.columns import read_table
from moedb.queries.report.pages.subject import Subject
from moedb.store.engine.execution import stop_if_asked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PAIRS = 100_000
"""Pairs of experts, over all layers, up to which every one is on a page."""

LEAST_JACCARD = 0.02
"""Of more pairs, those are that reach this."""

MOST_ACROSS = 10_000
"""Pairs of an expert and one of the next layer up to which every one is on a page."""

LEAST_SHARE = 0.1
"""Of more pairs, those are that so large a share of the expert's tokens choose."""

MOST_SURE = 50_000
"""Pairs, over all layers, up to which they have intervals; of more these would take too long."""

_COLUMNS = (
    *("layer", "expert_a", "expert_b", "n_both", "n_a", "n_b", "n_tokens"),
    *("jaccard", "expected", "lift"),
)
_ACROSS_COLUMNS = (
    *("layer", "next_layer", "expert", "next_expert", "n_both", "n_expert", "n_tokens"),
    *("p_next_given", "expected", "lift"),
)
_ALIKE = Part(
    "alike",
    "expert-similarity",
    "Cosines of the weights of two experts",
    figures=(
        {
            "kind": "pairs",
            "values": ["expert_cosine", "router_cosine", "matched_cosine"],
            "told": ["gate_cosine", "up_cosine", "down_cosine"],
        },
    ),
)


def pairs(subject: Subject) -> Json:
    """The section on pairs."""
    n_pairs = sum(n * (n - 1) // 2 for n in subject.contents.experts.values())
    has_all = n_pairs <= MOST_PAIRS
    together = answered(subject, _together(n_pairs))
    if "table" in together:
        together["figures"][0]["orders"] = orders_of(
            read_table(together["table"]), subject.contents.experts
        )
    notes = [] if has_all else [f"Of {n_pairs:,} pairs those of Jaccard index {LEAST_JACCARD} up."]
    n_across = _pairs_across(subject.contents.experts)
    if n_across > MOST_ACROSS:
        notes.append(
            f"Of {n_across:,} pairs of an expert and one of the next layer those that "
            f"{LEAST_SHARE:.0%} of the expert's tokens choose."
        )
    if subject.resampling is not None and max(n_pairs, n_across) > MOST_SURE:
        notes.append(
            f"Of more than {MOST_SURE:,} pairs no intervals are here; "
            "moedb query co-activation --ci and cross-layer --ci give them."
        )
    return {
        "id": "pairs",
        "title": "Experts that go together",
        "text": "As a matrix, by number or in an order that puts experts that go together side by "
        "side; and as a graph of the strongest pairs. Then each layer's experts by those of the "
        "next one.",
        "notes": notes,
        "parts": [together, answered(subject, _across(n_across)), answered(subject, _ALIKE)],
    }


def _pairs_across(experts: Mapping[int, int]) -> int:
    """How many pairs of an expert and one of the next layer there may be."""
    numbers = [n for _, n in sorted(experts.items())]
    return sum(n * following for n, following in pairwise(numbers))


def _across(n_pairs: int) -> Part:
    return Part(
        "across",
        "cross-layer",
        "Experts of the next layer that the tokens of an expert choose",
        figures=(
            {
                "kind": "heatmap",
                "x": "next_expert",
                "y": "expert",
                "panel": "layer",
                "values": ["p_next_given", "lift", "n_both"],
                "told": ["next_layer", "n_both", "n_expert", "expected"],
                "link": "expert",
                "layer": "next_layer",
            },
        ),
        sure=n_pairs <= MOST_SURE,
        where=None if n_pairs <= MOST_ACROSS else f"p_next_given >= {LEAST_SHARE}",
        columns=_ACROSS_COLUMNS,
        ends=("lift", "p_next_given"),
    )


def _together(n_pairs: int) -> Part:
    return Part(
        "together",
        "co-activation",
        "Experts chosen together for the same token",
        figures=(
            {
                "kind": "pairs",
                "values": ["jaccard", "lift", "n_both"],
                "told": ["n_both", "n_a", "n_b", "expected"],
            },
        ),
        sure=n_pairs <= MOST_SURE,
        where=None if n_pairs <= MOST_PAIRS else f"jaccard >= {LEAST_JACCARD}",
        columns=_COLUMNS,
        ends=("jaccard", "lift"),
    )


def orders_of(rows: Mapping[str, Any], n_experts: Mapping[int, int]) -> list[dict[str, Any]]:
    """Order the experts of each layer so that those that go together stand together.

    Average linkage over 1 less the Jaccard index, leaves in the order of Bar-Joseph et al. 2001.

    Parameters
    ----------
    rows
        Of ``co-activation``, by column.
    n_experts
        Of each layer.
    """
    import numpy as np

    found = []
    for layer, n in n_experts.items():
        stop_if_asked()
        alike = np.eye(n)
        own = rows["layer"] == layer
        a, b = rows["expert_a"][own], rows["expert_b"][own]
        alike[a, b] = alike[b, a] = rows["jaccard"][own]
        found.append({"layer": layer, "experts": _leaves(1 - alike)})
    return found


def _leaves(distances: "NDArray[np.float64]") -> list[int]:
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(distances) < 3:
        return [*range(len(distances))]
    tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(tree)]
