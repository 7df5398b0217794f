"""Which experts are chosen together, and which are alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.columns import read_table
from moedb.queries.report.pages.subject import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PAIRS = 100_000
"""Pairs of experts, over all layers, up to which every one is on a page."""

LEAST_JACCARD = 0.02
"""Of more pairs, those are that reach this."""

_COLUMNS = (
    *("layer", "expert_a", "expert_b", "n_both", "n_a", "n_b", "n_tokens"),
    *("jaccard", "expected", "lift"),
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
    together = answered(subject, _together(has_all))
    if "table" in together:
        together["figures"][0]["orders"] = orders_of(
            read_table(together["table"]), subject.contents.experts
        )
    notes = [] if has_all else [f"Of {n_pairs:,} pairs those of Jaccard index {LEAST_JACCARD} up."]
    return {
        "id": "pairs",
        "title": "Experts that go together",
        "text": "As a matrix, by number or in an order that puts experts that go together side by "
        "side; and as a graph of the strongest pairs.",
        "notes": notes,
        "parts": [together, answered(subject, _ALIKE)],
    }


def _together(has_all: bool) -> Part:
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
        where=None if has_all else f"jaccard >= {LEAST_JACCARD}",
        columns=_COLUMNS,
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
