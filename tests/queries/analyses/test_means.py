"""The interval of a mean over tokens, against the textbook's jackknife."""

import numpy as np
import pytest
from scipy.stats import t as student

from moedb.queries.analyses.uncertainty.means import interval_of_mean


def test_of_one_token_a_cluster_it_is_students_t() -> None:
    values = np.random.default_rng(2).normal(0.3, 0.1, 25)
    deviations = values - values.mean()
    degrees = min(25, 3 * (deviations**2).sum() ** 2 / (deviations**4).sum()) - 1
    half = student.ppf(0.975, degrees) * values.std(ddof=1) / 5
    found = interval_of_mean(values, np.arange(25)[::-1])
    assert found == pytest.approx((values.mean() - half, values.mean() + half))


def test_tokens_of_a_cluster_stay_together() -> None:
    values, sizes = np.random.default_rng(3).normal(size=60), [5, 9, 20, 26]
    clusters = np.repeat([7, 3, 9, 1], sizes)
    without = np.array([values[clusters != each].mean() for each in (7, 3, 9, 1)])
    error = np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    influence = without.mean() - without
    degrees = min(4, 3 * (influence**2).sum() ** 2 / (influence**4).sum()) - 1
    half = student.ppf(0.975, max(degrees, 1)) * error
    found = interval_of_mean(values, clusters)
    assert found == pytest.approx((values.mean() - half, values.mean() + half))


def test_what_says_nothing_has_none() -> None:
    assert interval_of_mean(np.zeros(0), np.zeros(0, np.int64)) == (None, None)
    assert interval_of_mean(np.array([0.5, 0.5, 0.5]), np.arange(3)) == (None, None)
