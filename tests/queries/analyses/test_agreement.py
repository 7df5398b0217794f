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
def test_the_interval_is_that_of_leaving_out_clusters(alike: float) -> None:
    values, parts = drawn(1200, alike)
    clusters = np.arange(1200) % 30 * 5
    found = agreement(values, parts, clusters)
    whole = adjusted_mutual_info_score(values, parts)
    kept = [clusters != each for each in np.unique(clusters)]
    without = np.array([adjusted_mutual_info_score(values[of], parts[of]) for of in kept])
    assert found.found == pytest.approx(whole)
    assert found.without == pytest.approx(without, abs=1e-5)
    error = np.sqrt(29 / 30 * ((without - without.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 29) * error
    assert found.interval() == pytest.approx((whole - half, whole + half), abs=1e-4)


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
