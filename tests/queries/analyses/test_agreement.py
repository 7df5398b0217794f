"""Intervals of adjusted mutual information, against leaving out clusters one by one."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score

from moedb.queries.analyses.uncertainty.agreement import MOST_GROUPS, agreement


def drawn(n: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Values, and parts that follow them for a share of the tokens."""
    draw = np.random.default_rng(n)
    values = draw.integers(0, 10, n)
    parts = np.where(draw.random(n) < alike, values % 3, draw.integers(0, 3, n))
    return values, parts


@pytest.mark.parametrize("alike", [0.0, 0.1, 0.6])
def test_the_interval_is_that_of_leaving_out_clusters_by_one_and_by_two(alike: float) -> None:
    values, parts = drawn(1200, alike)
    n = 20
    clusters = np.arange(1200) % n * 5
    found = agreement(values, parts, clusters)
    whole = adjusted_mutual_info_score(values, parts)

    def without(*out: int) -> float:
        kept = ~np.isin(clusters, np.array(out) * 5)
        return adjusted_mutual_info_score(values[kept], parts[kept])

    alone = [without(at) for at in range(n)]
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    by_two = [without(*pair) for pair in pairs]
    assert found.found == pytest.approx(whole)
    assert found.without == pytest.approx(alone, abs=1e-5)
    assert found.without_two == pytest.approx(by_two, abs=1e-5)
    # the shares of the variance: of what clusters say by themselves, and by two
    total = sum((one - np.mean(alone)) ** 2 for one in alone) * (n - 1) / n
    together = [
        n * whole - (n - 1) * (alone[a] + alone[b]) + (n - 2) * of
        for (a, b), of in zip(pairs, by_two, strict=True)
    ]
    squares = sum((one - np.mean(together)) ** 2 for one in together) / (n * (n - 1))
    rest = max(total - 2 * squares, 0)
    low, high = found.interval()
    assert low is not None and high is not None
    error, freedom = np.sqrt(squares), 9 * 2
    slope = (rest + error * 2 * error * np.sqrt(2 / freedom)) / (max(whole, 0) + error)
    influence = np.mean(alone) - np.array(alone)
    behind = min(3 * (influence**2).sum() ** 2 / (influence**4).sum(), n)
    t = stats.t.ppf(0.975, behind - 1)
    for end in (low, high):
        # so far is what was found, by the variance that it would have there
        assert abs(whole - end) == pytest.approx(
            t * np.sqrt(squares + rest + slope * (end - whole)), rel=0.02
        )
    assert low < whole < high


def test_intervals_hold_what_is_so() -> None:
    held = {alike: [0, 0] for alike in (0.0, 0.1, 0.5)}
    for alike, counts in held.items():
        rng = np.random.default_rng(5)

        def made(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            values = rng.integers(0, 10, n)  # noqa: B023
            one, other = (
                np.where(rng.random(n) < alike, values % 3, rng.integers(0, 3, n))  # noqa: B023
                for _ in range(2)
            )
            return values, one, other

        values, *parts = made(200_000)
        truth = [adjusted_mutual_info_score(values, of) for of in parts]
        for _ in range(100):
            values, *parts = made(1000)
            found = [agreement(values, of, np.arange(1000) % 100) for of in parts]
            alone, lead = found[0].interval(), found[0].less(found[1]).interval()
            for at, ((low, high), so) in enumerate(
                zip((alone, lead), (truth[0], truth[0] - truth[1]), strict=True)
            ):
                assert low is not None and high is not None
                counts[at] += low <= so <= high
    # of intervals that hold 95 in 100, fewer of 100, or more of 600, would be rarer than 1 in 500
    assert all(n >= 88 for counts in held.values() for n in counts), held
    assert sum(n for counts in held.values() for n in counts) <= 592, held


def test_a_lead_is_of_the_same_clusters_left_out() -> None:
    values, parts = drawn(600, 0.5)
    clusters = np.arange(600) % 20
    one, other = agreement(values, parts, clusters), agreement(values, parts[::-1], clusters)
    lead = one.less(other)
    assert lead.found == pytest.approx(one.found - other.found)
    assert lead.without == pytest.approx(one.without - other.without)
    low, high = lead.interval()
    assert 0 < low < lead.found < high
    assert one.less(one).interval() == (None, None)  # it does not vary


def test_many_clusters_are_left_out_in_groups() -> None:
    values, parts = drawn(1000, 0.3)
    found = agreement(values, parts, np.arange(1000))
    kept = np.arange(1000) % MOST_GROUPS != 3
    assert len(found.without) == MOST_GROUPS
    alone = adjusted_mutual_info_score(values[kept], parts[kept])
    assert found.without[3] == pytest.approx(alone, abs=1e-5)


def test_one_cluster_and_one_part() -> None:
    values, parts = drawn(50, 0.5)
    assert agreement(values, parts, np.zeros(50, dtype=np.int64)).interval() == (None, None)
    alone = agreement(values, np.zeros(50, dtype=np.int64), np.arange(50))
    assert alone.found == 0 and alone.interval() == (None, None)
    first = np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([0, 0, 1])
    assert agreement(*first).without.tolist() == [1.0, 1.0]
