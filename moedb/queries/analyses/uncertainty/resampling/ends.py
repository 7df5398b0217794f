"""The ends of intervals, of many estimates at once.

Quantiles of draws lie too close together where an estimate rests on few clusters, or on a few that
have most of it to say: then an interval reaches as far as Student's t does with as many degrees of
freedom, of a share on the scale of its log odds, which keeps it between 0 and 1. So does that of
an estimate with kinks, however many clusters there are.
"""

from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.uncertainty.bootstrap import TAIL, bca_places
from moedb.queries.analyses.uncertainty.resampling.settings import Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIE = 1e-9
_TAILS = (TAIL, 1 - TAIL)
_AT_ONCE = 128
"""Estimates whose ends are found together: their draws stay in the cache."""
_FEW_DRAWS = 0.5
"""Of an estimate that fewer of the draws than this have, there is no interval."""
_FEW = 15
"""Degrees of freedom below which an interval of quantiles is widened."""


class Ends(NamedTuple):
    """The ends of intervals, each (estimate,); NaN where there is none."""

    low: "NDArray[np.float64]"
    high: "NDArray[np.float64]"


class Kinds(NamedTuple):
    """What estimates are like, each (estimate,).

    Attributes
    ----------
    least, most
        What they can be: a share is from 0 to 1, most others at least 0.
    in_steps
        Whether they change only in steps: what is left out tells nothing of their spread.
    kinked
        Whether they bend, as the smaller of two shares does: where draws cross a bend the
        correction for bias goes too far.
    """

    least: "NDArray[np.float64]"
    most: "NDArray[np.float64]"
    in_steps: "NDArray[np.bool_]"
    kinked: "NDArray[np.bool_]"

    @classmethod
    def of_any(cls, n: int) -> "Kinds":
        """Return those of ``n`` estimates that can be any number, and vary smoothly."""
        import numpy as np

        endless, nowhere = np.full(n, np.inf), np.zeros(n, np.bool_)
        return cls(-endless, endless, nowhere, nowhere)

    def at(self, places: "slice | NDArray[np.bool_]") -> "Kinds":
        """Return some of them."""
        least, most, in_steps, kinked = self
        return Kinds(least[places], most[places], in_steps[places], kinked[places])

    def repeated(self, times: int) -> "Kinds":
        """Return each of them so many times."""
        import numpy as np

        least, most = (np.repeat(of, times) for of in (self.least, self.most))
        return Kinds(least, most, np.repeat(self.in_steps, times), np.repeat(self.kinked, times))


def ends_of(
    method: Method,
    estimates: "NDArray[np.float64]",
    drawn: "NDArray[np.float64]",
    without: "NDArray[np.float64]",
    kinds: Kinds,
    behind: "NDArray[np.int64]",
) -> Ends:
    """Return the ends of 95 % intervals.

    Parameters
    ----------
    method
        How they are found.
    estimates
        (estimate,): of all clusters; NaN where there is none.
    drawn
        (draw, estimate): of clusters drawn again; NaN where a draw has none.
    without
        (group, estimate): of all clusters but one group; NaN where the rest has none.
    kinds
        What the estimates are like. A share that is the same in every draw has Wilson's interval
        for as many as there are clusters: what was never seen may still be.
    behind
        (estimate,): how many of the groups have anything that it is of.

    Returns
    -------
    Ends
        NaN where an estimate rests on fewer than two clusters, or on what too few draws have; where
        it is no share and never varies; and of the jackknife where it goes in steps.

    References
    ----------
    Efron 1987, "Better bootstrap confidence intervals"; Hesterberg 2015, "What teachers should know
    about the bootstrap", section 5.3, for the widening by the number of clusters; Wilson 1927.
    """
    import numpy as np

    low, high = np.full((2, len(estimates)), np.nan)
    for start in range(0, len(estimates), _AT_ONCE):
        at = slice(start, start + _AT_ONCE)
        low[at], high[at] = _ends_of_some(
            method, estimates[at], drawn[:, at], without[:, at], kinds.at(at), behind[at]
        )
    return Ends(low, high)


def _ends_of_some(
    method: Method,
    estimates: "NDArray[np.float64]",
    drawn: "NDArray[np.float64]",
    without: "NDArray[np.float64]",
    kinds: Kinds,
    behind: "NDArray[np.int64]",
) -> Ends:
    import numpy as np

    # without the only cluster that it rests on there is none
    known = np.isfinite(estimates) & np.isfinite(without).all(axis=0) & (behind > 1)
    low, high = np.full((2, len(estimates)), np.nan)
    n_drawn = np.isfinite(drawn).sum(axis=0)
    if method != "jackknife":
        known &= n_drawn >= _FEW_DRAWS * len(drawn)
    if not known.any():
        return Ends(low, high)
    if not known.all():  # the draws of an estimate stay side by side
        estimates, drawn, without = estimates[known], drawn.T[known].T, without.T[known].T
        behind, kinds, n_drawn = behind[known], kinds.at(known), n_drawn[known]
    influence = without.mean(axis=0) - without
    # differences of rounding are none
    influence[(np.abs(influence) <= _TIE * np.abs(estimates)) | kinds.in_steps] = 0
    degrees = np.maximum(np.minimum(_clusters_behind(influence), behind) - 1, 1)
    ends = _by_t(estimates, influence, degrees, kinds)
    varies = (influence != 0).any(axis=0)
    if method != "jackknife":
        by_t = ends
        ordered = np.sort(drawn, axis=0)  # draws without one come last
        ends = _by_quantiles(method, estimates, ordered, n_drawn, influence, degrees)
        varies = ordered[n_drawn - 1, np.arange(len(estimates))] > ordered[0]
        if method == "bca":
            wider = ((degrees < _FEW) | kinds.kinked) & ~kinds.in_steps
            ends = Ends(
                np.where(wider, np.minimum(ends.low, by_t.low), ends.low),
                np.where(wider, np.maximum(ends.high, by_t.high), ends.high),
            )
    ends = Ends(*(np.clip(end, kinds.least, kinds.most) for end in ends))
    low[known], high[known] = _or_wilson(estimates, behind, kinds, varies, ends)
    return Ends(low, high)


def _or_wilson(
    estimates: "NDArray[np.float64]",
    behind: "NDArray[np.int64]",
    kinds: Kinds,
    varies: "NDArray[np.bool_]",
    ends: Ends,
) -> Ends:
    """Put in the place of intervals without a width what can be said where nothing varies."""
    import numpy as np
    from scipy.special import ndtri

    squared = float(ndtri(TAIL)) ** 2 / behind
    middle = (estimates + squared / 2) / (1 + squared)
    spread = np.maximum(estimates * (1 - estimates), 0) * squared + squared**2 / 4
    half = np.sqrt(spread) / (1 + squared)
    is_share = (kinds.most == 1) & ~kinds.in_steps
    return Ends(
        np.where(varies, ends.low, np.where(is_share, np.maximum(middle - half, 0), np.nan)),
        np.where(varies, ends.high, np.where(is_share, np.minimum(middle + half, 1), np.nan)),
    )


def _clusters_behind(influence: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(estimate,): the clusters that an estimate rests on, as if all had as much to say.

    Three times the squared sum of squares over the sum of fourth powers: n where influences are
    normal, fewer where a few have most of it; never more than those that change it.
    """
    import numpy as np

    squares = influence**2
    second, fourth = squares.sum(axis=0), (squares**2).sum(axis=0)
    changes = (influence != 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        told = 3 * second**2 / fourth
    found: NDArray[np.float64] = np.where(fourth > 0, np.minimum(told, changes), len(influence))
    return found


def _by_t(
    estimates: "NDArray[np.float64]",
    influence: "NDArray[np.float64]",
    degrees: "NDArray[np.float64]",
    kinds: Kinds,
) -> Ends:
    """Student's t of the jackknife's error; of a share on the scale of its log odds."""
    import numpy as np
    from scipy.special import expit, logit, stdtrit

    n = len(influence)
    error = np.sqrt((n - 1) / n * (influence**2).sum(axis=0))
    t = stdtrit(degrees, 1 - TAIL)
    inner = (kinds.most == 1) & (estimates > 0) & (estimates < 1)
    share = np.where(inner, estimates, 0.5)
    half = t * error / (share * (1 - share))
    low, high = (expit(logit(share) + sign * half) for sign in (-1, 1))
    return Ends(
        np.where(inner, low, estimates - t * error), np.where(inner, high, estimates + t * error)
    )


def _by_quantiles(
    method: Method,
    estimates: "NDArray[np.float64]",
    ordered: "NDArray[np.float64]",
    n_drawn: "NDArray[np.int64]",
    influence: "NDArray[np.float64]",
    degrees: "NDArray[np.float64]",
) -> Ends:
    import numpy as np
    from scipy.special import ndtr, ndtri

    if method == "percentile":
        tails = (np.full_like(estimates, tail) for tail in _TAILS)
        return Ends(*(quantile(ordered, n_drawn, tail) for tail in tails))
    # draws of values that are alike differ by rounding: those are ties, on any machine
    spread = ordered[n_drawn - 1, np.arange(len(estimates))] - ordered[0]
    tie = _TIE * np.maximum(spread, np.abs(estimates))
    smaller = n_below(ordered, estimates - tie)
    not_larger = n_below(ordered, np.nextafter(estimates + tie, np.inf))
    below = (smaller + not_larger) / 2 / n_drawn
    least = 0.5 / n_drawn
    bias = ndtri(np.clip(below, least, 1 - least))
    middle, deviation = np.full((2, len(estimates)), np.nan)
    # of plug-in estimates that are biased all draws may be on one side
    is_beyond = (below < least) | (below > 1 - least)
    if is_beyond.any():
        beyond = ordered.T[is_beyond]
        middle[is_beyond], deviation[is_beyond] = np.nanmean(beyond, 1), np.nanstd(beyond, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        bias = np.where(is_beyond, (estimates - middle) / deviation, bias)
    ends = []
    for at in bca_places(bias, influence, degrees):
        is_within = np.abs(at) <= -ndtri(least)
        within = quantile(ordered, n_drawn, ndtr(at))
        outside = ~is_within & is_beyond & np.isfinite(at)
        ends.append(np.where(outside, middle + at * deviation, within))
    return Ends(*ends)


def n_below(ordered: "NDArray[np.float64]", bound: "NDArray[np.float64]") -> "NDArray[np.int64]":
    """(estimate,): how many draws are below a bound."""
    import numpy as np

    columns = np.arange(len(bound))
    least, most = np.zeros_like(columns), np.full_like(columns, len(ordered))
    for _ in range(len(ordered).bit_length()):
        middle = (least + most) // 2
        is_below = ordered[np.minimum(middle, len(ordered) - 1), columns] < bound
        is_open = least < most
        least = np.where(is_open & is_below, middle + 1, least)
        most = np.where(is_open & ~is_below, middle, most)
    return least


def quantile(
    ordered: "NDArray[np.float64]", n_drawn: "NDArray[np.int64]", at: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """(estimate,): the quantile ``at`` of each column, of its first ``n_drawn`` rows."""
    import numpy as np

    place = np.nan_to_num(at) * (n_drawn - 1)
    lower = np.floor(place).astype(np.int64)
    upper = np.minimum(lower + 1, n_drawn - 1)
    columns = np.arange(len(at))
    low, high = ordered[lower, columns], ordered[upper, columns]
    found: NDArray[np.float64] = low + (place - lower) * (high - low)
    return found
