"""Rows of draws, against rows that are put together one by one."""

import numpy as np
import pytest

from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import by_layer
from moedb.queries.analyses.uncertainty.resampling.draws import Drawn, one_below_the_other
from moedb.queries.analyses.uncertainty.resampling.ends import n_below, quantile
from moedb.queries.counting.experts import expected_pairs


def rows_of(drawn: Drawn) -> list[tuple[object, ...]]:
    table = drawn.table()
    return sorted(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


class TestRows:
    def test_a_row_stands_where_something_is_counted(self) -> None:
        cells = {"value": np.array(["x", "y"], dtype=object), "expert": np.array([7, 3])}
        n = np.array([[1.0, 0, 2], [4, 5, 0]])
        drawn = Drawn(cells, {"n": n, "weight": n / 2}, n > 0)
        assert drawn.table().column_names == ["moedb_draw", "value", "expert", "n", "weight"]
        wanted = [(0, "x", 7, 1, 0.5), (0, "y", 3, 4, 2), (1, "y", 3, 5, 2.5), (2, "x", 7, 2, 1)]
        assert rows_of(drawn) == wanted

    def test_a_row_stands_as_often_as_it_is_drawn(self) -> None:
        drawn = Drawn({"example_id": np.array([5, 9])}, {}, np.array([[2, 0], [1, 3]]))
        assert rows_of(drawn) == [(0, 5), (0, 5), (0, 9), (1, 9), (1, 9), (1, 9)]

    def test_parts_stand_one_below_the_other(self) -> None:
        parts = [Drawn({"layer": np.array([at])}, {"n": np.array([[at, 1]])},
                       np.array([[at > 0, True]])) for at in range(3)]  # fmt: skip
        together = sorted(row for part in parts for row in rows_of(part))
        assert rows_of(one_below_the_other(parts)) == together

    @pytest.mark.parametrize("share", [0.01, 0.9], ids=["few cells", "most cells"])
    def test_clusters_are_added_up_as_often_as_they_count(self, share: float) -> None:
        rng = np.random.default_rng(4)
        clusters, experts = np.nonzero(rng.random((50, 30)) < share)
        n, weight = rng.integers(1, 9, len(experts)), rng.random(len(experts))
        rows = {"expert": experts, "n": n, "weight": weight}
        drawn = by_layer(rows, ("expert",), ("n", "weight"), clusters, 50)[None]
        weights = rng.integers(0, 3, (20, 50)).astype(float)
        found = {row[:2]: row[2:] for row in rows_of(drawn.drawn(weights))}
        wanted = {}
        for draw, of_draw in enumerate(weights):
            for expert in np.unique(experts):
                times = of_draw[clusters] * (experts == expert)
                if times.any():
                    wanted[draw, expert] = times @ n, times @ weight
        assert found.keys() == wanted.keys()
        for key, sums in wanted.items():
            assert found[key] == pytest.approx(sums)


def test_chances_of_pairs_are_worked_out_count_by_count() -> None:
    rng = np.random.default_rng(1)
    chosen = [rng.permuted(np.tile(np.arange(7), (40, 1)), axis=1)[:, :3] for _ in range(4)]
    n = np.array([np.bincount(each.ravel(), minlength=7) for each in chosen])
    n[1, 2] += n[1, 5]
    n[1, 5] = 0  # never, and always
    n[3] = [40, 20, 20, 10, 10, 10, 10]
    a, b = np.indices((7, 7)).reshape(2, -1)
    together = expected_pairs(n, np.full(4, 40), 3, a, b).reshape(4, 7, 7)
    for at, of in enumerate(n):
        used = np.flatnonzero(of)
        few = len(used)
        a, b = np.indices((few, few)).reshape(2, -1)
        alone = expected_pairs(of[None, used], np.array([40]), 3, a, b).reshape(few, few)
        np.testing.assert_allclose(together[at][np.ix_(used, used)], alone, rtol=1e-12)
    assert not together[1, 5].any()
    np.testing.assert_array_equal(together[3, 0, 1:], n[3, 1:])
    # over all pairs k (k - 1) / 2 T
    for of in together:
        assert np.triu(of, 1).sum() == pytest.approx(3 * 40, rel=1e-3)


def test_places_among_ordered_draws_are_those_that_numpy_finds() -> None:
    rng = np.random.default_rng(6)
    for n in (1, 2, 7, 64, 1023, 1024):
        drawn = np.sort(rng.integers(0, 9, (n, 40)).astype(float), axis=0)
        bound = rng.integers(-1, 11, 40).astype(float)
        np.testing.assert_array_equal(n_below(drawn, bound), (drawn < bound).sum(axis=0))
        at = rng.random(40)
        wanted = [np.quantile(of, each) for of, each in zip(drawn.T, at, strict=True)]
        np.testing.assert_allclose(quantile(drawn, np.full(40, n), at), wanted)


def test_draws_without_an_estimate_are_below_nothing() -> None:
    drawn = np.array([[1.0, 2], [3, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(n_below(drawn, np.array([10.0, 10])), [2, 1])
