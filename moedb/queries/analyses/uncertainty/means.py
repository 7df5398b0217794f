"""Intervals of numbers over tokens, whose examples are what was sampled."""

from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.uncertainty.bootstrap import number_or_none
from moedb.queries.analyses.uncertainty.resampling.ends import Kinds, ends_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def interval_of_mean(
    values: "NDArray[np.floating[Any]]", clusters: "NDArray[np.int64]"
) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of a mean: Student's t of the jackknife over clusters.

    Parameters
    ----------
    values
        (token,).
    clusters
        (token,): the cluster of each, a number.

    Returns
    -------
    tuple
        None, None of fewer than two clusters, and of values that are all alike.

    Examples
    --------
    >>> import numpy as np
    >>> interval_of_mean(np.array([1.0, 2.0]), np.array([4, 4]))
    (None, None)
    """
    import numpy as np

    if not len(values):
        return None, None
    _, of = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(of, values), np.bincount(of)
    if len(sizes) < 2:
        return None, None
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return interval_of_jackknife(sums.sum() / sizes.sum(), without)


def interval_of_jackknife(
    estimate: float, without: "NDArray[np.float64]"
) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of an estimate: Student's t of the jackknife.

    Parameters
    ----------
    estimate
        What was found.
    without
        (cluster,): the same without each cluster, or each group of clusters, two at least.

    Returns
    -------
    tuple
        None, None where it does not vary.

    Examples
    --------
    >>> import numpy as np
    >>> interval_of_jackknife(1.0, np.array([1.0, 1.0, 1.0]))
    (None, None)
    """
    import numpy as np

    [low], [high] = ends_of(
        "jackknife",
        np.array([estimate]),
        np.zeros((0, 1)),
        without[:, None],
        Kinds.of_any(1),
        np.array([len(without)]),
    )
    return number_or_none(low), number_or_none(high)
