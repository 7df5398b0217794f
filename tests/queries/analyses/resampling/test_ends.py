"""The ends of intervals: against scipy, by hand, and how often they hold the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t as student

from moedb.queries.analyses.uncertainty.resampling.draws import (
    MOST_LEFT_OUT,
    drawn_again,
    left_out,
    numbered_groups,
)
from moedb.queries.analyses.uncertainty.resampling.ends import Ends, Kinds, ends_of
from moedb.queries.analyses.uncertainty.resampling.settings import Method

Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights (draw, cluster) to (draw, estimate)."""


def kinds_of(n: int, is_share: bool = False, in_steps: bool = False, kinked: bool = False) -> Kinds:
    least, most = (0.0, 1.0) if is_share else (-np.inf, np.inf)
    return Kinds(*(np.full(n, of) for of in (least, most, in_steps, kinked)))


def ends_for(
    statistic: Statistic,
    n_clusters: int,
    method: Method = "bca",
    samples: int = 1000,
    **kinds: bool,
) -> Ends:
    estimates = statistic(np.ones((1, n_clusters)))[0]
    drawn = statistic(drawn_again(n_clusters, samples, 0))
    without = statistic(left_out(n_clusters, 0))
    behind = np.full(len(estimates), len(without))
    return ends_of(method, estimates, drawn, without, kinds_of(len(estimates), **kinds), behind)


def mean_of(values: np.ndarray) -> Statistic:
    return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]


def test_bca_is_that_of_scipy_where_there_are_many() -> None:
    values = np.random.default_rng(3).lognormal(sigma=0.6, size=1500)
    (low,), (high,) = ends_for(mean_of(values), len(values), samples=4000)
    wanted = scipy_bootstrap(
        (values,), np.mean, n_resamples=4000, random_state=np.random.default_rng(2)
    ).confidence_interval
    width = wanted.high - wanted.low
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.05 * width)


def test_the_jackknife_of_a_mean_is_students_t() -> None:
    values = np.random.default_rng(5).normal(3, 2, 40)
    (low,), (high,) = ends_for(mean_of(values), 40, "jackknife")
    deviations = values - values.mean()
    degrees = min(40, 3 * (deviations**2).sum() ** 2 / (deviations**4).sum()) - 1
    half = student.ppf(0.975, degrees) * values.std(ddof=1) / np.sqrt(40)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_a_share_by_the_jackknife_stays_between_0_and_1() -> None:
    seen = np.zeros(30)
    seen[:2] = 1
    (low,), (high,) = ends_for(mean_of(seen), 30, "jackknife", is_share=True)
    assert 0 < low < 2 / 30 < high < 1


def test_of_the_smaller_of_two_shares_an_interval_reaches_as_far_as_the_jackknifes() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, (60, 2))

    def smaller(weights: np.ndarray) -> np.ndarray:
        return (weights @ values / weights.sum(axis=1)[:, None]).min(axis=1)[:, None]

    plain, by_t = ends_for(smaller, 60), ends_for(smaller, 60, "jackknife")
    both = ends_for(smaller, 60, kinked=True)
    # the two shares are so alike that draws tell the bias wrong
    assert plain.high > by_t.high and by_t.low < plain.low
    assert (both.low, both.high) == (by_t.low, plain.high)


def test_what_never_varies_has_wilsons_interval_if_it_is_a_share_and_else_none() -> None:
    never = mean_of(np.zeros(20))
    (low,), (high,) = ends_for(never, 20, is_share=True)
    squared = 1.959964**2
    assert (low, high) == pytest.approx((0, squared / (20 + squared)), abs=1e-6)
    assert np.isnan(ends_for(never, 20)).all()


def test_a_single_cluster_has_no_interval() -> None:
    values = np.zeros(9)
    lengths = np.zeros(9)
    values[4], lengths[4] = 3, 5

    def share(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights @ values / (weights @ lengths))[:, None]

    for method in ("bca", "percentile", "jackknife"):
        assert np.isnan(ends_for(share, 9, method, is_share=True)).all()


def test_what_goes_in_steps_is_not_left_to_the_jackknife() -> None:
    scores = np.random.default_rng(0).normal(size=(30, 3)) + np.array([0.1, 0, 0])

    def is_first(weights: np.ndarray) -> np.ndarray:
        return ((weights @ scores).argmax(axis=1) == 0).astype(float)[:, None]

    assert np.isnan(ends_for(is_first, 30, "jackknife", in_steps=True)).all()
    assert np.isin(ends_for(is_first, 30, "bca", in_steps=True), (0, 1)).all()


def test_groups_are_of_one_size_and_hold_everything() -> None:
    groups = numbered_groups(1003, MOST_LEFT_OUT, 5)
    assert set(np.bincount(groups)) == {5, 6}
    without = left_out(1003, 5)
    assert without.shape == (MOST_LEFT_OUT, 1003)
    np.testing.assert_array_equal((1 - without).sum(axis=0), 1)
    np.testing.assert_array_equal(numbered_groups(7, 200, 1), np.arange(7))


class TestCoverage:
    """Documents of unequal length, each with a bent of its own, of a common and a rare class."""

    OF_CLASS = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    RARE = 0.1

    def population(
        self, rng: np.random.Generator, n: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        is_rare = rng.random(n) < self.RARE
        lengths = 5 + rng.geometric(0.02, n)
        bents = [rng.dirichlet(10 * self.OF_CLASS[int(rare)]) for rare in is_rare]
        counts = np.stack([rng.multinomial(length, bent)
                           for length, bent in zip(lengths, bents, strict=True)])  # fmt: skip
        return is_rare, lengths, counts

    def statistic(self, is_rare: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> Statistic:
        def of(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                share = (weights @ counts) / (weights @ lengths)[:, None]
                of_rare = weights[:, is_rare]
                rate = (of_rare @ counts[is_rare]) / (of_rare @ lengths[is_rare])[:, None]
            return np.concatenate([share, rate], axis=1)

        return of

    @pytest.mark.parametrize(
        ("n", "times", "least"), [(20, 400, 0.90), (100, 300, 0.92), (1000, 120, 0.92)]
    )
    def test_intervals_hold_the_truth(self, n: int, times: int, least: float) -> None:
        common = 1 - self.RARE
        truth = np.concatenate([common * self.OF_CLASS[0] + self.RARE * self.OF_CLASS[1],
                                self.OF_CLASS[1]])  # fmt: skip
        held, known = np.zeros(8), np.zeros(8)
        for time in range(times):
            drawn = self.population(np.random.default_rng([n, time]), n)
            low, high = ends_for(self.statistic(*drawn), n, samples=500, is_share=True)
            known += np.isfinite(low)
            held += (low <= truth) & (truth <= high)
        covered = held / known
        # three standard errors of the simulation beside 92 to 98 %
        error = 3 * np.sqrt(0.05 * 0.95 / known)
        assert (covered[:4] > 0.92 - error[:4]).all()
        assert (covered[:4] < 0.98 + error[:4]).all()
        # of two rare documents of twenty little can be said, and it is
        assert (covered[4:] > least - error[4:]).all()
        assert (known[:4] == times).all()
