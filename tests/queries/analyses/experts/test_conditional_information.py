"""Conditional information, against cases by hand, scikit-learn, and nulls that hold or do not."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from moedb.queries.analyses.experts.conditional_information import (
    Units,
    null_information,
    pointwise_information,
)

ONE, TWO = np.repeat([0, 1], 4), np.tile([0, 1], 4)


def information(labels, groups, given):
    return float(pointwise_information(labels, groups, given).mean())


@pytest.mark.parametrize(
    ("labels", "experts", "clusters", "wanted"),
    [
        (ONE, ONE, TWO, 1.0),  # the expert is the label, the cluster chance
        (ONE, TWO * 0, TWO, 0.0),
        (ONE, ONE, ONE, 0.0),  # the expert is a function of the cluster
        (ONE ^ TWO, ONE, TWO, 1.0),
        (ONE ^ TWO, ONE, ONE * 0, 0.0),
    ],
)
def test_cases_by_hand(labels, experts, clusters, wanted):
    assert information(labels, experts, clusters) == pytest.approx(wanted, abs=1e-12)


def test_agrees_with_scikit_learn_within_each_cluster():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 5, 600)
    experts = (clusters + rng.integers(0, 3, 600)) % 6
    labels = (experts + rng.integers(0, 4, 600)) % 7
    wanted = sum(
        (clusters == one).mean()
        * mutual_info_score(labels[clusters == one], experts[clusters == one])
        for one in range(5)
    ) / np.log(2)
    assert information(labels, experts, clusters) == pytest.approx(wanted)


def test_a_shuffle_keeps_labels_in_their_cells_and_agrees_with_the_definition():
    rng = np.random.default_rng(1)
    labels, experts, clusters, examples = (rng.integers(0, n, 400) for n in (5, 4, 3, 10))
    units = Units(labels, np.arange(400), examples)
    for shuffled in units.shuffles(clusters, 3, 0):
        assert (shuffled != labels).any()
        for example in range(10):
            for one in range(3):
                cell = (examples == example) & (clusters == one)
                assert sorted(shuffled[cell]) == sorted(labels[cell])
    null = null_information(units, experts, clusters, 3, 0)
    wanted = [information(own, experts, clusters) for own in units.shuffles(clusters, 3, 0)]
    np.testing.assert_allclose(null, wanted)


def p_value(units, groups, given, seed):
    null = null_information(units, groups, given, 99, seed)
    return (1 + (null >= information(units.labels, groups, given) - 1e-9).sum()) / 100


def drawn(seed, planted):
    """Tokens of 40 examples: labels and experts follow clusters; planted, labels experts too."""
    rng = np.random.default_rng(seed)
    examples = np.repeat(np.arange(40), 25)
    clusters = rng.integers(0, 4, 1000)
    experts = (clusters + rng.integers(0, 3, 1000)) % 5
    labels = (clusters + rng.integers(0, 2, 1000)) % 4
    labels = np.where(rng.random(1000) < planted, experts % 4, labels)
    return labels, experts, clusters, examples


def test_rejects_about_five_percent_of_tokens_without_conditional_information():
    found = []
    for seed in range(200):
        labels, experts, clusters, examples = drawn(seed, 0)
        found.append(p_value(Units(labels, np.arange(1000), examples), experts, clusters, seed))
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.10


def test_finds_what_is_planted():
    labels, experts, clusters, examples = drawn(0, 0.3)
    assert p_value(Units(labels, np.arange(1000), examples), experts, clusters, 0) == 0.01


def test_labels_of_examples_whose_tokens_depend_on_each_other():
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        examples = np.repeat(np.arange(60), 20)
        labels = rng.integers(0, 3, 60)[examples]
        clusters = np.where(rng.random(1200) < 0.5, labels, rng.integers(0, 4, 1200))
        favourite = rng.integers(0, 5, (60, 4))[examples, clusters]
        experts = np.where(rng.random(1200) < 0.5, favourite, rng.integers(0, 5, 1200))
        units = Units(labels, examples, np.zeros_like(labels))
        found.append(p_value(units, experts, clusters, seed))
    assert np.mean(np.array(found) <= 0.05) <= 0.10


def test_what_only_the_cluster_and_what_only_the_expert_says_are_told_apart():
    rng = np.random.default_rng(5)
    examples = np.repeat(np.arange(40), 25)
    clusters, experts = rng.integers(0, 3, 1000), rng.integers(0, 3, 1000)
    for labels, tells, does_not in ((clusters, clusters, experts), (experts, experts, clusters)):
        units = Units(labels, np.arange(1000), examples)
        assert p_value(units, tells, does_not, 0) == 0.01
        assert p_value(units, does_not, tells, 0) == 1.0
