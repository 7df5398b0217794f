"""How often each cluster counts in each draw."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LEFT_OUT = 200
"""Of more clusters than this several are left out together, at random: enough to tell a spread."""


def numbered_groups(n_clusters: int, n_groups: int, seed: int) -> "NDArray[np.int64]":
    """Put clusters together at random into groups whose sizes differ by one at most.

    Returns
    -------
    (cluster,): the group of each.
    """
    import numpy as np

    groups = np.arange(n_clusters) % max(1, min(n_groups, n_clusters))
    if n_groups < n_clusters:
        np.random.default_rng(seed).shuffle(groups)
    return groups


def drawn_again(n_clusters: int, samples: int, seed: int, stream: int = 0) -> "NDArray[np.float64]":
    """Draw as many clusters as there are, with replacement.

    Parameters
    ----------
    n_clusters
        How many there are.
    samples
        How often.
    seed
        The seed.
    stream
        Another number for draws that are independent of these.

    Returns
    -------
    (sample, cluster): how often each was drawn.
    """
    import numpy as np

    rng = np.random.default_rng([seed, stream] if stream else seed)
    even = np.full(n_clusters, 1 / max(n_clusters, 1))
    drawn: NDArray[np.int64] = rng.multinomial(n_clusters, even, samples)
    return drawn.astype(np.float64)


def left_out(n_clusters: int, seed: int) -> "NDArray[np.float64]":
    """Leave out one cluster, or one group of them, after the other.

    Returns
    -------
    (group, cluster): 0 for those left out, 1 for the rest.
    """
    import numpy as np

    groups = numbered_groups(n_clusters, MOST_LEFT_OUT, seed)
    n_groups = int(groups.max()) + 1 if n_clusters else 0
    kept: NDArray[np.bool_] = groups[None, :] != np.arange(n_groups)[:, None]
    return kept.astype(np.float64)
