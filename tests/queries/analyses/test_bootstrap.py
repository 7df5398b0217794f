"""Intervals of means and shares: against scipy, by hand, and how often they hold the truth."""

import logging
import math

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from moedb.queries.analyses.uncertainty.bootstrap import bootstrap, means, warn_of_few
from moedb.queries.analyses.uncertainty.shares import change_of_share, share_of

SAMPLES = 999


def interval_of(values: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0):
    return bootstrap(values[:, None], SAMPLES, seed, clusters).intervals()[:, 0]


class TestMeans:
    @pytest.mark.parametrize("skew", [0.1, 1.0])
    def test_bca_is_that_of_scipy_where_there_are_many_rows(self, skew: float) -> None:
        values = np.random.default_rng(3).lognormal(sigma=skew, size=2000)
        low, high = interval_of(values, seed=5)
        wanted = scipy_bootstrap(
            (values,),
            np.mean,
            n_resamples=SAMPLES,
            method="BCa",
            random_state=np.random.default_rng(5),
        ).confidence_interval
        width = wanted.high - wanted.low
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.01 * width)

    def test_few_rows_have_a_wider_interval_than_scipys(self) -> None:
        values = np.random.default_rng(3).normal(size=8)
        low, high = interval_of(values, seed=5)
        wanted = scipy_bootstrap(
            (values,),
            np.mean,
            n_resamples=SAMPLES,
            method="BCa",
            random_state=np.random.default_rng(5),
        ).confidence_interval
        assert 1.15 < (high - low) / (wanted.high - wanted.low) < 1.6

    def test_columns_with_gaps_are_drawn_over_their_own_rows(self) -> None:
        values = np.random.default_rng(2).normal(size=(40, 3))
        values[::3, 1] = np.nan
        values[1:, 2] = np.nan
        found = bootstrap(values, SAMPLES, 7)
        alone = bootstrap(values[np.isfinite(values[:, 1])][:, 1:2], SAMPLES, 7)
        np.testing.assert_array_equal(found.drawn[:, 1], alone.drawn[:, 0])
        np.testing.assert_array_equal(found.intervals()[:, 1], alone.intervals()[:, 0])
        assert np.isnan(found.intervals()[:, 2]).all()
        assert found.n_clusters.tolist() == [40, 26, 0]
        np.testing.assert_allclose(means(values), np.nanmean(values, axis=0))

    def test_no_samples_and_no_rows_give_no_interval(self) -> None:
        assert np.isnan(bootstrap(np.ones((3, 2)), 0, 0).intervals()).all()
        assert np.isnan(bootstrap(np.ones((0, 2)), 5, 0).intervals()).all()

    def test_values_that_are_alike_have_no_width(self) -> None:
        # a sum of tenths is off by rounding, more or less so from draw to draw
        assert interval_of(np.full(40, 0.1)) == pytest.approx([0.1, 0.1], abs=1e-15)

    def test_a_quotient_is_taken_draw_by_draw(self) -> None:
        rng = np.random.default_rng(8)
        below = rng.normal(10, 1, size=60)
        values = np.stack([2 * below, below], axis=1)
        ratio = bootstrap(values, SAMPLES, 0).combined(lambda rows: rows[:, 0] / rows[:, 1])
        np.testing.assert_allclose(ratio.intervals()[:, 0], 2)
        values[:, 0] += rng.normal(size=60)
        ratio = bootstrap(values, SAMPLES, 0).combined(lambda rows: rows[:, 0] / rows[:, 1])
        residuals = values[:, 0] - ratio.estimates[0] * values[:, 1]
        error = residuals.std(ddof=1) / math.sqrt(60) / values[:, 1].mean()
        low, high = ratio.intervals()[:, 0]
        assert (high - low) / (2 * 2.0 * error) == pytest.approx(1, abs=0.1)

    def test_clusters_are_drawn_whole(self) -> None:
        # three copies of each row say no more than one
        values = np.random.default_rng(4).exponential(size=50)
        clusters = np.tile(np.arange(50), 3)
        np.testing.assert_allclose(interval_of(np.tile(values, 3), clusters), interval_of(values))
        assert np.ptp(interval_of(np.tile(values, 3))) < 0.7 * np.ptp(interval_of(values))

    def test_clusters_of_different_sizes_weigh_by_their_rows(self) -> None:
        values, clusters = np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 0, 1])
        drawn = bootstrap(values[:, None], 400, 0, clusters).drawn[:, 0]
        assert set(drawn.tolist()) == {1.0, 2.0, 5.0}


class TestShares:
    @pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 10), (99, 100), (100, 100)])
    def test_of_independent_examples_it_is_wilsons(self, right: int, n: int) -> None:
        values = (np.arange(n) < right).astype(float)
        found = share_of(values, np.arange(n))
        wanted = binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
        assert found.size == pytest.approx(n)

    def test_copies_of_an_example_say_no_more_than_one(self) -> None:
        values = np.array([1.0] * 30 + [0.0] * 10)
        clusters = np.tile(np.arange(40), 3)
        one, three = share_of(values, np.arange(40)), share_of(np.tile(values, 3), clusters)
        assert three.size == pytest.approx(40, rel=0.08)
        assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=0.01)
        # where all are right nothing tells how alike the examples of a cluster are
        assert share_of(np.ones(120), clusters).low == share_of(np.ones(40), np.arange(40)).low

    @pytest.mark.parametrize(
        "table", [(20, 12, 2, 16), (36, 12, 2, 0), (53, 0, 1, 0), (0, 30, 0, 0), (54, 0, 0, 0)]
    )
    def test_a_change_is_newcombes_from_the_table_of_pairs(self, table) -> None:
        both, only_after, only_before, neither = table
        after = np.repeat([1.0, 1.0, 0.0, 0.0], table)
        before = np.repeat([1.0, 0.0, 1.0, 0.0], table)
        n = sum(table)
        ends = [
            binomtest(right, n).proportion_ci(method="wilson")
            for right in (both + only_after, both + only_before)
        ]
        p1, p2 = (both + only_after) / n, (both + only_before) / n
        margins = (both + only_after) * (only_before + neither) * (both + only_before)
        margins *= only_after + neither
        product = both * neither - only_after * only_before
        product = max(product - n / 2, 0) if product > 0 else product
        phi = product / math.sqrt(margins) if margins else 0.0
        d1, e1, d2, e2 = p1 - ends[0].low, ends[0].high - p1, p2 - ends[1].low, ends[1].high - p2
        wanted = (
            p1 - p2 - math.sqrt(d1**2 - 2 * phi * d1 * e2 + e2**2),
            p1 - p2 + math.sqrt(e1**2 - 2 * phi * e1 * d2 + d2**2),
        )
        assert change_of_share(after, before, np.arange(n)) == pytest.approx(wanted, abs=1e-9)

    def test_a_share_that_never_changes_is_not_sure(self) -> None:
        low, high = change_of_share(np.ones(300), np.ones(300), np.arange(300))
        assert low == pytest.approx(-0.0126, abs=1e-4) and high == pytest.approx(0.0126, abs=1e-4)
        assert np.isnan(change_of_share(np.ones(3), np.ones(3), np.zeros(3, int))).all()


def covers(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


class TestCoverage:
    """How many of 95 % intervals hold the truth; in 400 trials +- 0.022 by accident."""

    @pytest.mark.parametrize(
        ("n", "name", "least"),
        [(10, "normal", 0.915), (10, "exponential", 0.89), (20, "normal", 0.92),
         (20, "exponential", 0.90), (100, "normal", 0.925), (100, "exponential", 0.92)],
    )  # fmt: skip
    def test_of_a_mean(self, n: int, name: str, least: float) -> None:
        rng = np.random.default_rng([n, len(name)])
        values = {"normal": rng.normal, "exponential": rng.exponential}[name](size=(n, 400))
        truth = {"normal": 0.0, "exponential": 1.0}[name]
        low, high = bootstrap(values, SAMPLES, 1).intervals()
        assert least <= covers(list(zip(low, high, strict=True)), truth) <= 0.985

    @pytest.mark.parametrize("n", [10, 20, 100])
    @pytest.mark.parametrize("share", [0.6, 0.95, 0.99])
    def test_of_a_share(self, n: int, share: float) -> None:
        rng = np.random.default_rng([n, int(100 * share)])
        found = [share_of((rng.random(n) < share).astype(float), np.arange(n)) for _ in range(2000)]
        # by the binomial distribution the least is 0.904, of 10 with a share of 0.99
        assert covers([(each.low, each.high) for each in found], share) >= 0.89

    @pytest.mark.parametrize("n", [10, 20, 100])
    @pytest.mark.parametrize("lost", [0.0, 0.02, 0.3])
    def test_of_a_change_of_an_accuracy_near_one(self, n: int, lost: float) -> None:
        rng = np.random.default_rng([n, int(100 * lost)])
        found = []
        for _ in range(400):
            before = (rng.random(n) < 0.98).astype(float)
            after = before * (rng.random(n) >= lost)
            found.append(change_of_share(after, before, np.arange(n)))
        assert covers(found, -0.98 * lost) >= 0.92
        assert min(high - low for low, high in found) > 0.01

    @pytest.mark.parametrize("n_clusters", [10, 30])
    def test_of_clusters(self, n_clusters: int) -> None:
        # ten examples of each cluster, that agree more with each other than with the rest
        rng = np.random.default_rng(n_clusters)
        clusters = np.repeat(np.arange(n_clusters), 10)
        of_cluster = rng.normal(size=(n_clusters, 400))
        values = of_cluster[clusters] + rng.normal(size=(len(clusters), 400))
        low, high = bootstrap(values, SAMPLES, 1, clusters).intervals()
        assert 0.90 <= covers(list(zip(low, high, strict=True)), 0) <= 0.985
        low, high = bootstrap(values, SAMPLES, 1).intervals()
        assert covers(list(zip(low, high, strict=True)), 0) < 0.75
        shares = [share_of(column, clusters) for column in (values > -1).T.astype(float)]
        truth = 0.5 * (1 + math.erf(1 / 2))
        assert covers([(share.low, share.high) for share in shares], truth) >= 0.92
        alone = [
            share_of(column, np.arange(len(values))) for column in (values > -1).T.astype(float)
        ]
        assert covers([(share.low, share.high) for share in alone], truth) < 0.85


def test_few_prompts_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_few("logit-lens", [300, 30], None)
        assert not caplog.records
        warn_of_few("logit-lens", [300, 12, 29], "work")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "logit-lens: 2 of 3 intervals come from fewer than 30 independent prompts (clusters by "
        "work), the fewest from 12"
    )
