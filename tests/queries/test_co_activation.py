"""Pairs of experts against chance: by hand, by exact sampling theory, and for random routing."""

from itertools import combinations

import duckdb
import numpy as np
import pandas as pd
import pytest

from tests.queries import oracle, synthetic
from tests.queries.test_named_queries import ask

NAMES = ("co-activation", "co-activation-adjacent")


def make_run(ranked: np.ndarray, n_experts: int) -> duckdb.DuckDBPyConnection:
    """One layer and one example; ``ranked`` is (token, rank), the experts of each token."""
    n_tokens, top_k = ranked.shape
    run, token_idx = {"run_id": "r"}, np.arange(n_tokens)
    rows = {
        "runs": {**run, "status": ["complete"], "created_at": "2026"},
        "moe_layers": {**run, "layer": [0], "n_experts": n_experts, "top_k": top_k},
        "examples": {**run, "example_id": [0], "split": "clean", "n_tokens": n_tokens},
        "tokens": {**run, "token_idx": token_idx, "example_id": 0, "position": token_idx},
        "routing": {
            **run,
            "layer": 0,
            "token_idx": np.repeat(token_idx, top_k),
            "rank": np.tile(np.arange(top_k), n_tokens),
            "expert": ranked.ravel(),
            "weight": 1.0,
        },
    }
    tables = {name: frame.iloc[:0] for name, frame in synthetic.make_tables(0).items()}
    for name, columns in rows.items():
        tables[name] = pd.DataFrame(columns).reindex(columns=tables[name].columns)
    return synthetic.connect(tables)


def drawn_at_random(scores: np.ndarray, top_k: int, n_tokens: int, seed: int) -> np.ndarray:
    """(token, rank): one expert after the other, in proportion to exp(score) of those left."""
    noise = np.random.default_rng(seed).gumbel(size=(n_tokens, len(scores)))
    return np.argsort(-(scores + noise), axis=1)[:, :top_k]


def subset_sums(odds: np.ndarray, size: int) -> np.ndarray:
    """(size + 1,): sum over all subsets of each size of the product of their odds."""
    sums = np.zeros(size + 1)
    sums[0] = 1
    for own in odds:
        sums[1:] = sums[1:] + own * sums[:-1]
    return sums


def exact_chances(rates: np.ndarray, top_k: int) -> np.ndarray:
    """(E, E): how likely two are both drawn, of all designs with these rates the most random.

    A subset of k is drawn in proportion to the product of its odds; the odds are those that give
    each expert its rate.
    """
    odds, found = rates / (1 - rates), np.zeros_like(rates)
    while np.abs(found - rates).max() > 1e-12:
        whole = subset_sums(odds, top_k)[top_k]
        rest = [subset_sums(np.delete(odds, e), top_k - 1)[top_k - 1] for e in range(len(odds))]
        found = odds * rest / whole
        odds = odds * (rates / (1 - rates)) / (found / (1 - found))
        odds = odds / np.exp(np.log(odds).mean())
    both = np.zeros((len(odds), len(odds)))
    whole = subset_sums(odds, top_k)[top_k]
    for a, b in combinations(range(len(odds)), 2):
        rest_of = subset_sums(np.delete(odds, [a, b]), top_k - 2)[top_k - 2]
        both[a, b] = both[b, a] = odds[a] * odds[b] * rest_of / whole
    return both


def test_the_exact_chances_are_those_of_drawing() -> None:
    rates = exact_chances(np.full(5, 0.6), 3)
    np.testing.assert_allclose(rates[np.triu_indices(5, 1)], 3 * 2 / (5 * 4))
    # 3 of 4 leave one out: both are there unless one of the two is the one
    rates = exact_chances(np.array([0.9, 0.8, 0.7, 0.6]), 3)
    assert rates[0, 1] == pytest.approx(1 - 0.1 - 0.2)


@pytest.mark.parametrize(("n_experts", "top_k"), [(6, 2), (6, 3), (5, 4), (7, 7)])
def test_every_subset_once_is_chance(n_experts: int, top_k: int) -> None:
    ranked = np.array(list(combinations(range(n_experts), top_k)))
    pairs = ask(make_run(ranked, n_experts), "co-activation", {})
    assert len(pairs) == n_experts * (n_experts - 1) // 2
    share = top_k * (top_k - 1) / (n_experts * (n_experts - 1))
    np.testing.assert_allclose(pairs["expected"], share * len(ranked), rtol=1e-12)
    np.testing.assert_allclose(pairs["lift"], 1, rtol=1e-12)
    np.testing.assert_allclose(
        pairs["independent"], (top_k / n_experts) ** 2 * len(ranked), rtol=1e-12
    )


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 1.5])
def test_random_routing_has_a_lift_of_one(skew: float) -> None:
    scores = skew * np.random.default_rng(4).normal(size=60)
    connection = make_run(drawn_at_random(scores, 4, 30_000, seed=1), 60)
    pairs = ask(connection, "co-activation", {})
    # all pairs of a token are there, so the sum over all pairs is exact
    assert pairs["n_both"].sum() == 6 * 30_000
    # what chance expects of pairs that are never there is in no row
    assert 0.99 < pairs["expected"].sum() / pairs["n_both"].sum() < 1 + 1e-9
    # rare pairs are there by accident or not at all; the others have a lift each
    frequent = pairs[pairs["expected"] > 20]
    assert len(frequent) > 300
    assert frequent["lift"].mean() == pytest.approx(1, abs=0.01)
    independent = frequent["n_both"] / frequent["independent"]
    assert independent.mean() < 0.8
    if not skew:
        assert len(frequent) == 60 * 59 // 2
        assert independent.mean() == pytest.approx(0.763, abs=0.003)
        adjacent = ask(connection, "co-activation-adjacent", {})
        assert adjacent["n_adjacent"].sum() == 3 * 30_000
        assert adjacent["expected"].sum() == pytest.approx(3 * 30_000)
        assert adjacent["lift"].mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("n_experts", "top_k", "skew", "within"),
    [(60, 4, 0.5, 0.004), (60, 4, 1.0, 0.01), (64, 8, 0.7, 0.004), (16, 4, 0.7, 0.02),
     (8, 2, 0.4, 0.001)],
)  # fmt: skip
def test_expected_is_that_of_the_most_random_draw(
    n_experts: int, top_k: int, skew: float, within: float
) -> None:
    scores = skew * np.random.default_rng(n_experts).normal(size=n_experts)
    ranked = drawn_at_random(scores, top_k, 20_000, seed=2)
    counts = np.bincount(ranked.ravel(), minlength=n_experts)
    pairs = ask(make_run(ranked, n_experts), "co-activation", {})
    exact = 20_000 * exact_chances(counts / 20_000, top_k)
    wanted = exact[pairs["expert_a"], pairs["expert_b"]]
    np.testing.assert_allclose(pairs["expected"], wanted, rtol=within)
    # and far from what independent experts would have
    assert np.abs(pairs["independent"] / wanted - 1).max() > 10 * within


def test_experts_that_are_always_there_are_expected_with_every_other() -> None:
    # two of four places are taken by experts 0 and 1
    ranked = np.array([[0, 1, *rest] for rest in combinations(range(2, 6), 2)])
    pairs = ask(make_run(ranked, 7), "co-activation", {})
    assert len(pairs) == 15
    np.testing.assert_allclose(pairs["lift"], 1, rtol=1e-12)
    # and with one place left no two of the others are ever expected together
    ranked = np.array([[0, 1, expert] for expert in (2, 2, 3, 4)])
    pairs = ask(make_run(ranked, 6), "co-activation", {})
    assert len(pairs) == 7 and set(pairs["lift"]) == {1}


@pytest.mark.parametrize("name", NAMES)
def test_one_expert_a_token_has_no_pairs(name: str) -> None:
    assert ask(make_run(np.array([[0], [1], [1]]), 3), name, {}).empty


def test_the_expectations_of_an_expert_add_up_to_its_partners() -> None:
    counts = np.array([900, 500, 300, 200, 60, 40])
    chances = oracle.pair_chances(counts, 2, 1000)
    np.testing.assert_allclose(chances.sum(axis=1), counts, rtol=0.2)
    chances = oracle.pair_chances(counts, 2, 1000, steps=400)
    np.testing.assert_allclose(chances.sum(axis=1), counts, rtol=0.03)
