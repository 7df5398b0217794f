"""The differences of two answers, with their intervals."""

from typing import TYPE_CHECKING, NamedTuple

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.asked_again import AskedAgain
from moedb.queries.analyses.uncertainty.resampling.comparing.power import standard_errors
from moedb.queries.analyses.uncertainty.resampling.draws import drawn_again, left_out
from moedb.queries.analyses.uncertainty.resampling.ends import Ends, Kinds, ends_of
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Differences(NamedTuple):
    """Differences of estimates between two sides, each (row, estimate).

    Attributes
    ----------
    one, other
        The estimates of the two.
    low, high
        The ends of the interval of the first less the second; NaN where there is none.
    error
        The standard error of that; NaN where it does not vary, or too few draws have it.
    n_clusters
        How many clusters the side with fewer of them has; of many about how many have anything of
        what is compared, such as a class.
    """

    one: "NDArray[np.float64]"
    other: "NDArray[np.float64]"
    low: "NDArray[np.float64]"
    high: "NDArray[np.float64]"
    error: "NDArray[np.float64]"
    n_clusters: int


def differences(one: AskedAgain, other: AskedAgain) -> Differences:
    """Find the differences of two answers, row by row, with their intervals.

    Parameters
    ----------
    one, other
        The query of either side; their rows stand in the same order.
    """
    import numpy as np

    of_one, of_other = one.estimates(), other.estimates()
    low, high, error = np.full((3, *of_one.shape), np.nan)
    n_clusters = min(side.n_drawn for each in (one, other) for side in each.sides.values())
    n_samples = one.n_samples
    steps, kinked = one.kinds.in_steps, one.kinds.kinked
    n_behind = np.zeros(2, np.int64)
    for of_layer, others in zip(one.drawn(), other.drawn(), strict=True):
        places, drawn, behind = of_layer
        n_behind = np.maximum(n_behind, [behind.max(initial=0), others[2].max(initial=0)])
        n_estimates = of_one[places].size
        apart = (drawn - others[1]).reshape(len(drawn), n_estimates)
        endless = np.full(n_estimates, np.inf)
        ends: Ends = ends_of(
            one.resampling.method,
            (of_one - of_other)[places].ravel(),
            apart[:n_samples],
            apart[n_samples:],
            Kinds(-endless, endless, *(np.tile(of, len(places)) for of in (steps, kinked))),
            np.repeat(np.maximum(behind, others[2]), of_one.shape[1]),
        )
        errors = standard_errors(apart[:n_samples], apart[n_samples:], n_clusters)
        # what the jackknife says of steps is nothing
        errors[np.tile(steps, len(places)) & (n_samples == 0)] = np.nan
        found = (*ends, errors)
        low[places], high[places], error[places] = (of.reshape(-1, of_one.shape[1]) for of in found)
    return Differences(of_one, of_other, low, high, error, min(n_clusters, *n_behind.tolist()))


def share_draws(one: AskedAgain, other: AskedAgain, resampling: Resampling) -> bool:
    """Let two answers have the same draws of the clusters that both have.

    Returns
    -------
    Whether there are such clusters, as examples of both are the same; else both are drawn apart.

    Raises
    ------
    UsageError
        If either compares two runs by itself.
    """
    import numpy as np

    if len(one.sides) != 1 or len(other.sides) != 1:
        raise UsageError(
            "--compare: what compares two runs by itself cannot be compared with another such",
            "leave out run_b",
        )
    (name, of_one), (_, of_other) = *one.sides.items(), *other.sides.items()
    samples, seed = one.n_samples, resampling.seed
    are_grouped = of_one.n_drawn < of_one.n_clusters or of_other.n_drawn < of_other.n_clusters
    # examples of two data sets may bear the same numbers
    are_alike = of_one.examples_sha256 == of_other.examples_sha256
    if are_alike and of_one.names == of_other.names:
        other.weights = one.weights
        return True
    places = {each: at for at, each in enumerate(dict.fromkeys([*of_one.names, *of_other.names]))}
    if are_grouped or not are_alike or len(places) == len(of_one.names) + len(of_other.names):
        without = [left_out(side.n_drawn, seed) for side in (of_one, of_other)]
        first, second = (len(of) for of in without)
        one.weights = {name: np.concatenate([
            drawn_again(of_one.n_drawn, samples, seed), without[0],
            np.ones((second, of_one.n_drawn))])}  # fmt: skip
        other.weights = {name: np.concatenate([
            drawn_again(of_other.n_drawn, samples, seed, 1), np.ones((first, of_other.n_drawn)),
            without[1]])}  # fmt: skip
        return False
    whole = np.concatenate([drawn_again(len(places), samples, seed), left_out(len(places), seed)])
    one.weights = {name: whole[:, [places[each] for each in of_one.names]]}
    other.weights = {name: whole[:, [places[each] for each in of_other.names]]}
    return True
