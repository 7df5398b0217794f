"""Clusters of directions: spherical k-means."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROUNDS = 100
_ROWS = 8192


def directions(vectors: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Vectors of length 1 from the mean of all; of one that is the mean, nothing.

    Parameters
    ----------
    vectors
        (row, d).
    """
    import numpy as np

    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    found: NDArray[np.float32] = np.divide(
        centred, lengths, out=np.zeros_like(centred), where=lengths > 0
    ).astype(np.float32)
    return found


def spherical_clusters(
    unit: "NDArray[np.float32]", n_clusters: int, seed: int
) -> "NDArray[np.int64]":
    """Divide directions into clusters, each about the direction of its sum.

    Parameters
    ----------
    unit
        (row, d): vectors of length 1.
    n_clusters
        How many, no more than rows.
    seed
        Of the first centres, which k-means++ chooses.

    Returns
    -------
    NDArray
        (row,): the cluster of each; of centres that are as near, the first. A cluster may stay
        empty.

    References
    ----------
    Dhillon & Modha 2001, "Concept decompositions for large sparse text data using clustering".
    """
    import numpy as np
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(unit, n_clusters, random_state=seed)
    centres = np.asarray(centres, dtype=np.float32)
    found = np.full(len(unit), -1)
    for _ in range(_ROUNDS):
        nearest = np.concatenate(
            [
                np.argmax(unit[first : first + _ROWS] @ centres.T, axis=1)
                for first in range(0, len(unit), _ROWS)
            ]
        )
        if (nearest == found).all():
            break
        found = nearest
        sums = np.zeros((n_clusters, unit.shape[1]))
        np.add.at(sums, found, unit)
        lengths = np.linalg.norm(sums, axis=1)
        kept = lengths > 0
        centres[kept] = (sums[kept] / lengths[kept, None]).astype(np.float32)
    return found
