"""How an estimate stands among what chance gives."""

from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.uncertainty.resampling.ends import n_below, quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIE = 1e-9
_TAIL = 0.025
_FEW = 0.5
"""Of an estimate that fewer of the draws than this have, nothing is said."""


class Chances(NamedTuple):
    """What chance gives, each (estimate,); NaN where it gives nothing.

    Attributes
    ----------
    mean
        The mean of the draws.
    low, high
        Ends of the middle 95 % of them.
    p_value
        How often they are as far out as the estimate, on the side where it is, twice.
    """

    mean: "NDArray[np.float64]"
    low: "NDArray[np.float64]"
    high: "NDArray[np.float64]"
    p_value: "NDArray[np.float64]"


def chances_of(estimates: "NDArray[np.float64]", drawn: "NDArray[np.float64]") -> Chances:
    """Return how estimates stand among draws.

    Parameters
    ----------
    estimates
        (estimate,).
    drawn
        (draw, estimate): what chance gave; NaN where it gave none.

    References
    ----------
    Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    import numpy as np

    has = np.isfinite(drawn)
    n = has.sum(axis=0)
    known = np.isfinite(estimates) & (n >= _FEW * len(drawn)) & (n > 0)
    found = Chances(*np.full((4, len(estimates)), np.nan))
    if not known.any():
        return found
    # the draws of an estimate stay side by side; those without one come last
    ordered, observed, n = np.sort(drawn.T[known].T, axis=0), estimates[known], n[known]
    low, high = (quantile(ordered, n, np.full(len(n), tail)) for tail in (_TAIL, 1 - _TAIL))
    largest = np.maximum(np.abs(ordered[0]), np.abs(ordered[n - 1, np.arange(len(n))]))
    # what is the same may differ by rounding
    tie = _TIE * np.maximum(np.abs(observed), largest)
    above = n - n_below(ordered, observed - tie)
    below = n_below(ordered, np.nextafter(observed + tie, np.inf))
    p_value = np.minimum(1, 2 * (1 + np.minimum(above, below)) / (1 + n))
    for column, of in zip(found, (np.nanmean(ordered, axis=0), low, high, p_value), strict=True):
        column[known] = of
    return found


def false_discovery_rates(p_values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return for each p-value the smallest rate of false discoveries at which it is one.

    Parameters
    ----------
    p_values
        (row,): of all rows together; NaN where there is none.

    References
    ----------
    Benjamini & Hochberg 1995.

    Examples
    --------
    >>> import numpy as np
    >>> false_discovery_rates(np.array([0.01, 0.04, 0.03, np.nan])).round(3)
    array([0.03, 0.04, 0.04,  nan])
    """
    import numpy as np
    from scipy.stats import false_discovery_control

    found = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        found[known] = false_discovery_control(p_values[known])
    return found
