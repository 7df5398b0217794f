"""The smallest difference that so many clusters would show."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SMALL = 100
"""Of fewer clusters on either side it is said what they would show."""

_POWER, _LEVEL = 0.8, 0.05


def standard_errors(
    drawn: "NDArray[np.float64]", without: "NDArray[np.float64]", n_clusters: int
) -> "NDArray[np.float64]":
    """Return the standard error of each estimate.

    Parameters
    ----------
    drawn
        (draw, estimate): of clusters drawn again; none of them for the jackknife's error.
    without
        (group, estimate): of all but some of them.
    n_clusters
        How many are drawn. Draws vary by (n - 1) / n of the variance.

    Returns
    -------
    (estimate,): NaN where fewer than half of the draws have one, or it does not vary.
    """
    import numpy as np

    has = np.isfinite(drawn)
    if len(drawn):
        n = has.sum(axis=0)
        mean = np.where(has, drawn, 0).sum(axis=0) / np.maximum(n, 1)
        squares = np.where(has, drawn - mean, 0) ** 2
        variance = squares.sum(axis=0) / np.maximum(n - 1, 1)
        variance *= n_clusters / max(n_clusters - 1, 1)
        variance = np.where(n >= len(drawn) / 2, variance, np.nan)
    else:
        n_groups = max(len(without), 1)
        variance = without.var(axis=0) * (n_groups - 1) if len(without) else np.nan
    found: NDArray[np.float64] = np.sqrt(np.where(variance > 0, variance, np.nan))
    return found


def smallest_shown(errors: "NDArray[np.float64]", n_clusters: int) -> "NDArray[np.float64]":
    """Return the true differences that are told from 0 at the 5 % level four times of five.

    Parameters
    ----------
    errors
        Standard errors of differences.
    n_clusters
        How many clusters the smaller side has.

    Examples
    --------
    >>> import numpy as np
    >>> smallest_shown(np.array([1.0]), 10_000).round(1).item()
    2.8
    >>> smallest_shown(np.array([1.0]), 10).round(1).item()
    3.1
    """
    from scipy.special import stdtrit

    degrees = max(n_clusters - 1, 1)
    times = stdtrit(degrees, 1 - _LEVEL / 2) + stdtrit(degrees, _POWER)
    found: NDArray[np.float64] = times * errors
    return found


def power_note(
    names: "Sequence[str]", errors: "NDArray[np.float64]", n_clusters: int
) -> str | None:
    """Say what so few clusters would show; None of many, and where nothing varies.

    Parameters
    ----------
    names
        The estimates.
    errors
        (row, estimate): standard errors of the differences.
    n_clusters
        How many clusters the smaller side has.
    """
    import numpy as np

    if n_clusters >= SMALL:
        return None
    shown = smallest_shown(errors, n_clusters)
    told = [
        f"{float(np.median(of[np.isfinite(of)])):.2g} in {name}"
        for name, of in zip(names, shown.T, strict=True)
        if np.isfinite(of).any()
    ]
    if not told:
        return None
    of_rows = ", the median over rows" if len(shown) > 1 else ""
    return (
        f"{n_clusters} clusters show a true difference with 80 % power at the 5 % level from "
        f"{', '.join(told)} on{of_rows}"
    )
