"""Which of an expert's decisions are shown in their contexts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moedb.queries.questions.parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUANTILES = Parameter(
    "quantiles",
    "integer",
    5,
    False,
    "groups of equal size, by score; where there is a remainder, the first have one more",
    least=1,
    most=1000,
)
PER_CLUSTER = Parameter(
    "per_cluster",
    "integer",
    1,
    False,
    "contexts of one cluster at most, in each quantile where by is quantile; 0 for any",
    least=0,
)

By = Literal["top", "quantile", "random"]
"""How contexts are chosen."""


@dataclass(frozen=True)
class Choice:
    """How contexts of an expert are chosen.

    Attributes
    ----------
    by
        ``top``: the largest scores. ``quantile``: the decisions, ordered by score, are divided
        into groups of equal size, and as many are drawn from each. ``random``: drawn from all.
    n
        How many contexts.
    quantiles
        How many groups; where ``n`` is no multiple of it, the first ones have one context more.
    per_cluster
        How many contexts of one cluster at most, by quantiles in each of the groups; 0 for any.
    seed
        Of what is drawn; each expert has draws of its own.
    """

    by: By = "top"
    n: int = 20
    quantiles: int = 5
    per_cluster: int = 1
    seed: int = 0


def choose(
    scores: "NDArray[np.float64]",
    token_idx: "NDArray[np.int64]",
    clusters: "NDArray[np.int64]",
    choice: Choice,
    place: tuple[int, int],
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Choose among the decisions of an expert.

    Parameters
    ----------
    scores, token_idx, clusters
        (decision,): of equal scores the one with the smaller ``token_idx`` comes first.
    choice
        How.
    place
        The layer and the expert, which are part of the seed.

    Returns
    -------
    tuple
        (context,): the decisions that are chosen, and the group of each, from 1 on for the largest
        scores; 0 unless chosen by quantiles.
    """
    import numpy as np

    ordered = np.lexsort((token_idx, -scores))
    rng = np.random.default_rng([choice.seed, *place])
    if choice.by == "top":
        chosen = _first(ordered, clusters, choice.n, choice.per_cluster)
        return chosen, np.zeros(len(chosen), dtype=np.int64)
    if choice.by == "random":
        chosen = _first(rng.permutation(ordered), clusters, choice.n, choice.per_cluster)
        return chosen, np.zeros(len(chosen), dtype=np.int64)
    found = []
    for number, group in enumerate(np.array_split(ordered, choice.quantiles)):
        wanted = choice.n // choice.quantiles + (number < choice.n % choice.quantiles)
        drawn = _first(rng.permutation(group), clusters, wanted, choice.per_cluster)
        strongest_first = drawn[np.lexsort((token_idx[drawn], -scores[drawn]))]
        found.append((strongest_first, np.full(len(drawn), number + 1)))
    return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])


def _first(
    ordered: "NDArray[np.int64]", clusters: "NDArray[Any]", n: int, per_cluster: int
) -> "NDArray[np.int64]":
    """The first ``n`` of which no more than ``per_cluster`` are of one cluster."""
    if not per_cluster:
        return ordered[:n]
    # what comes later changes nothing about those in front: seldom are all of them looked at
    size = max(_FIRST_LOOK, 4 * n)
    while True:
        kept = _limited(ordered[:size], clusters, per_cluster)
        if len(kept) >= n or size >= len(ordered):
            return kept[:n]
        size *= 4


_FIRST_LOOK = 1024
"""Decisions that are looked at first for those of different clusters."""


def _limited(
    ordered: "NDArray[np.int64]", clusters: "NDArray[Any]", per_cluster: int
) -> "NDArray[np.int64]":
    """Those before which fewer than ``per_cluster`` are of the same cluster."""
    import numpy as np

    if not len(ordered):
        return ordered
    own = clusters[ordered]
    together = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(own[together]) != 0])
    sizes = np.diff(np.r_[starts, len(own)])
    place_in_cluster = np.empty(len(own), dtype=np.int64)
    place_in_cluster[together] = np.arange(len(own)) - np.repeat(starts, sizes)
    return ordered[place_in_cluster < per_cluster]
