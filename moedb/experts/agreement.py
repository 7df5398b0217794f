"""How far what is said agrees with what is right, from counts of both."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.number[Any]]


def f1(counts: Counts) -> NDArray[np.float64]:
    """Return F1 of each row; 0 where there is nothing to find, and NaN stays.

    Parameters
    ----------
    counts
        (row, 3 or more): right yes, wrong yes, missed ones; what follows is passed over.

    Examples
    --------
    >>> f1(np.array([[2, 1, 1], [0, 0, 0]])).round(3).tolist()
    [0.667, 0.0]
    """
    right, wrong, missed = counts.T[:3]
    return share(2 * right, 2 * right + wrong + missed)


def share(part: Counts, whole: Counts) -> NDArray[np.float64]:
    """Return ``part / whole``, 0 where there is no whole, and NaN where that is not known."""
    found = np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
    return np.where(np.isfinite(whole), found, np.nan)
