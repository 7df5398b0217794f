"""Intervals of shares, and of what a condition changes in them: Wilson's, and Newcombe's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.uncertainty.bootstrap import TAIL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """A share of examples.

    Attributes
    ----------
    share
        The share.
    size
        Examples behind it, or as many as would be as informative if they were independent.
    low, high
        Wilson's 95 % interval.
    """

    share: float
    size: float
    low: float
    high: float


def share_of(values: "NDArray[np.floating[Any]]", clusters: "NDArray[np.int64]") -> Share:
    """Return a share with its interval.

    Parameters
    ----------
    values
        (example,): 0 or 1, or a share over draws.
    clusters
        (example,): its cluster. The size is that of the examples over their design effect, with a
        t for the number of clusters (Korn & Graubard 1998); the number of clusters where all
        values are alike, as nothing tells how much those of a cluster depend on each other.
    """
    import numpy as np
    from scipy.special import ndtri, stdtrit

    n_examples, share = len(values), float(np.mean(values))
    _, at = np.unique(clusters, return_inverse=True)
    n_clusters = int(at.max()) + 1
    size = float(n_clusters)
    spread = share * (1 - share)
    if spread > 0 and n_clusters > 1:
        off = np.bincount(at, weights=values - share)
        variance = float((off**2).sum()) * n_clusters / (n_clusters - 1) / n_examples**2
        ideal = spread / (n_examples - 1)
        few = stdtrit(n_examples - 1, 1 - TAIL) / stdtrit(n_clusters - 1, 1 - TAIL)
        size = n_examples * min(1.0, ideal / variance * few**2) if variance > 0 else n_examples
    z = -float(ndtri(TAIL))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(spread / size + z**2 / (4 * size**2))
    return Share(share, size, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def change_of_share(
    after: "NDArray[np.floating[Any]]",
    before: "NDArray[np.floating[Any]]",
    clusters: "NDArray[np.int64]",
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares of the same examples.

    Newcombe's method 10: Wilson's intervals of both, put together by the correlation of the two,
    which is corrected for continuity. It has a width where neither share ever varies.

    Parameters
    ----------
    after, before
        (example,): 0 or 1, or a share over draws. NaN for both where there is no value.
    clusters
        (example,): its cluster.

    Returns
    -------
    tuple
        The ends of the interval of the first share less the second; NaN for fewer than two
        clusters.

    References
    ----------
    Wilson 1927; Newcombe 1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17.
    """
    import numpy as np

    held = np.isfinite(after) & np.isfinite(before)
    after, before, clusters = after[held], before[held], clusters[held]
    if len(np.unique(clusters)) < 2:
        return float("nan"), float("nan")
    new, old = share_of(after, clusters), share_of(before, clusters)
    _, at = np.unique(clusters, return_inverse=True)
    off_new = np.bincount(at, weights=after - new.share)
    off_old = np.bincount(at, weights=before - old.share)
    scale = float(np.sqrt((off_new**2).sum() * (off_old**2).sum()))
    correlation = 0.0
    if scale > 0:
        together = float((off_new * off_old).sum())
        if together > 0:
            together = max(0.0, together - len(after) / min(new.size, old.size) / 2)
        correlation = together / scale
    low_new, high_new = new.share - new.low, new.high - new.share
    low_old, high_old = old.share - old.low, old.high - old.share
    below = low_new**2 - 2 * correlation * low_new * high_old + high_old**2
    above = high_new**2 - 2 * correlation * high_new * low_old + low_old**2
    change = new.share - old.share
    return change - float(np.sqrt(max(below, 0.0))), change + float(np.sqrt(max(above, 0.0)))
