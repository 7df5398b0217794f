"""What chance gives, against numpy, by hand, and where there is nothing to find."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare, kstest, multinomial

import moedb
from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.null import shuffled_counts
from moedb.queries.analyses.uncertainty.resampling.null.chances import (
    chances_of,
    false_discovery_rates,
)
from moedb.queries.analyses.uncertainty.resampling.null.shuffled_counts import ShuffledCounts
from moedb.queries.analyses.uncertainty.resampling.null.shuffled_statistics import (
    ShuffledStatistics,
)
from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling
from moedb.queries.analyses.uncertainty.shuffled_labels import labelled_units
from moedb.queries.database import Database
from tests.support.stores.made.planted import write_planted
from tests.support.stores.made.uneven import LAYERS, OTHER, RUN, write_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chance") / "store"
    write_run(folder, RUN, 0)
    write_run(folder, OTHER, 7)
    return folder


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


class TestChances:
    def test_p_values_are_uniform_where_there_is_nothing_to_find(self) -> None:
        rng = np.random.default_rng(4)
        observed, drawn = rng.normal(size=2000), rng.normal(size=(999, 2000))
        found = chances_of(observed, drawn)
        assert kstest(found.p_value, "uniform").pvalue > 0.01
        np.testing.assert_allclose(found.mean, drawn.mean(axis=0))
        np.testing.assert_allclose(found.low, np.quantile(drawn, 0.025, axis=0))
        inside = (found.low <= observed) & (observed <= found.high)
        assert 0.93 < inside.mean() < 0.97

    def test_by_hand(self) -> None:
        drawn = np.array([[0.0, 1], [1, 1], [2, np.nan], [3, np.nan], [4, np.nan]])
        found = chances_of(np.array([3.0, 1]), drawn)
        # 3 and 4 reach it, of 5: twice (1 + 2) / 6
        assert found.p_value[0] == pytest.approx(1.0)
        assert np.isnan(found.p_value[1])
        assert chances_of(np.array([9.0]), drawn[:, :1]).p_value[0] == pytest.approx(2 / 6)

    def test_what_is_alike_but_for_rounding_is_reached(self) -> None:
        drawn = np.full((99, 1), 0.1 + 0.2)
        assert chances_of(np.array([0.3]), drawn).p_value[0] == 1

    def test_false_discoveries_are_kept_to_their_rate(self) -> None:
        rng = np.random.default_rng(2)
        rates = []
        for _ in range(200):
            p_values = rng.random(100)
            p_values[:20] *= 1e-4
            is_found = false_discovery_rates(p_values) <= 0.1
            rates.append(is_found[20:].sum() / max(is_found.sum(), 1))
        assert np.mean(rates) < 0.1


def shuffled_routing(db: Database, key: str, n: int = 400) -> pd.DataFrame:
    counts = ShuffledCounts(
        db, "routing-by-class", {"run": RUN, "split": "all", "key": key}, Null(n)
    )
    return counts.rows("class_routing", 4, slice(0, n)).table().to_pandas()


def test_shuffling_leaves_what_all_labelled_tokens_choose(db: Database) -> None:
    drawn = shuffled_routing(db, "pos")
    of_draws = drawn.groupby(["moedb_draw", "expert"])["n_decisions"].sum().unstack(fill_value=0)
    # tokens 0, 1 and 4 of each unit are labelled; 0 and 4 twice, or once
    labelled = db.sql(
        "select expert, count(*) as n from routing join token_labels using (run_id, token_idx) "
        "where run_id = $run and key = 'pos' and layer = 4 group by expert",
        {"run": RUN},
    ).df()
    assert (of_draws.sum(axis=1) == labelled["n"].sum()).all()
    assert of_draws.shape[0] == 400


def test_what_chance_gives_of_a_rate_is_that_of_all_labelled_examples(db: Database) -> None:
    found = db.resampled(null=Null(2000, seed=1)).query(
        "routing-by-class", run=RUN, split="all", key="other", layer=1
    )
    rows = found.df()
    # one example of each unit has the label, with one value: nothing moves
    np.testing.assert_allclose(rows["rate_null"], rows["rate"])
    assert (rows["rate_p"] == 1).all()
    assert (rows["rate_q"] == 1).all()


def test_shuffled_by_hand(tmp_path: Path) -> None:
    """Three of six examples have a topic: each draw is one of the twenty ways to choose them."""
    write_planted(tmp_path / "store", 6, seed=3)
    with moedb.open(tmp_path / "store") as database:
        lengths = [n for (n,) in database.sql("select n_tokens from examples").fetchall()]
        run = next(iter(database.snapshot.runs))
        values = {"run": run, "split": "all", "key": "topic"}
        counts = ShuffledCounts(database, "overlap", values, Null(2000, seed=2))
        sizes = counts.rows("class_sizes", None, slice(0, 2000)).table().to_pandas()
    drawn = sizes.pivot(index="moedb_draw", columns="value", values="n_tokens")
    ways = Counter(sum(chosen) for chosen in combinations(lengths, 3))
    found = Counter(drawn["x"])
    assert set(found) == set(ways)
    assert chisquare([found[n] for n in ways], [100 * n for n in ways.values()]).pvalue > 0.001
    assert (drawn.sum(axis=1) == sum(lengths)).all()


def test_a_planted_class_is_found_and_an_idle_one_is_not(tmp_path: Path) -> None:
    write_planted(tmp_path / "store", 60, seed=3)
    with moedb.open(tmp_path / "store") as database:
        resampled = database.resampled(null=Null(500))
        told = resampled.query("overlap", key="topic", value_a="x", value_b="y").df()
        idle = resampled.query("overlap", key="coin", value_a="heads", value_b="tails").df()
        rates = resampled.query("routing-by-class", key="topic").df()
    assert (told["jensen_shannon_p"] < 0.01).all()
    assert (idle["jensen_shannon_p"] > 0.01).all()
    assert (rates["rate_q"] < 0.05).mean() > 0.5


@pytest.mark.parametrize("key", ["kind", "pos", "other"])
def test_statistics_of_shuffled_classes_are_those_of_their_tokens(db: Database, key: str) -> None:
    values = {"run": RUN, "split": "all", "key": key}
    n, layer = 6, 5
    shuffled = ShuffledStatistics(db, "router-confidence", values, Null(n, seed=3))
    found = shuffled.rows("class_router_stats", layer, slice(0, n)).table().to_pandas()
    found["value"] = found["value"].astype(str)
    found = found.set_index(["moedb_draw", "value"]).sort_index()
    statistics = db.sql(
        "select token_idx, example_id, entropy::double as entropy, margin::double as margin "
        "from router_stats join tokens using (run_id, token_idx) "
        "where run_id = $run and layer = $layer", {"run": RUN, "layer": layer}
    ).df()  # fmt: skip
    labelled = labelled_units(db, values, "router-confidence", None)
    unit = "token_idx" if labelled.on_tokens else "example_id"
    bounds = [*labelled.starts, len(labelled.members)]
    rng = np.random.default_rng(3)
    for draw in range(n):
        sets = labelled.permuted(rng)
        for value, start, stop in zip(labelled.values, bounds, bounds[1:], strict=False):
            units = labelled.units[np.isin(sets, labelled.members[start:stop])]
            own = statistics[statistics[unit].isin(units)]
            row = found.loc[(draw, value)]
            assert row["n_tokens"] == len(own)
            assert row["mean_entropy"] == pytest.approx(own["entropy"].mean())
            assert row["mean_margin"] == pytest.approx(own["margin"].mean())
            assert row["sd_entropy"] == pytest.approx(own["entropy"].std(), rel=1e-6, nan_ok=True)


def test_router_confidence_of_idle_labels_is_that_of_chance(db: Database) -> None:
    found = db.resampled(null=Null(200)).query("router-confidence", run=RUN, split="all", key="pos")
    assert "chance: labels shuffled over tokens within examples, 200 times" in found.footer
    rows = found.df()
    assert len(rows) == 2 * len(LAYERS)
    assert rows[["mean_margin_null", "mean_margin_p", "mean_margin_q"]].notna().all().all()
    inside = (rows["mean_margin_null_low"] <= rows["mean_margin"]) & (
        rows["mean_margin"] <= rows["mean_margin_null_high"]
    )
    assert inside.mean() > 0.5


@pytest.mark.model
def test_answers_of_shuffled_templates(mini_store: Path) -> None:
    with moedb.open(mini_store) as database:
        rows = database.resampled(null=Null(300)).query("ioi-logit-diff", key="template").df()
    everyone = rows[rows["value"] == "all"].iloc[0]
    # all prompts together are the same prompts, whatever their labels
    assert everyone["mean_logit_diff_null"] == pytest.approx(everyone["mean_logit_diff"])
    assert everyone["mean_logit_diff_p"] == 1
    own = rows[rows["value"] != "all"]
    assert len(own) > 1
    # the mean over shufflings of a mean over so many prompts is that of all of them
    spread = own["mean_logit_diff_null_high"] - own["mean_logit_diff_null_low"]
    off = (own["mean_logit_diff_null"] - everyone["mean_logit_diff"]).abs()
    assert (off < spread / 4).all()
    assert (own["accuracy_p"] > 0).all()


def test_experts_chosen_alike_are_a_multinomial(db: Database) -> None:
    rows = db.resampled(null=Null(3000)).query("load-balance", run=RUN, split="all").df()
    row = rows[rows["layer"] == 1].iloc[0]
    n_experts, top_k = LAYERS[1]
    n = 24 * top_k
    drawn = multinomial.rvs(n, np.full(n_experts, 1 / n_experts), size=3000, random_state=7)
    cv = drawn.std(axis=1) / drawn.mean(axis=1)
    assert row["cv_null"] == pytest.approx(cv.mean(), rel=0.03)
    assert row["cv_null_high"] == pytest.approx(np.quantile(cv, 0.975), rel=0.05)
    largest = drawn.max(axis=1) / drawn.mean(axis=1)
    assert row["max_over_mean_null"] == pytest.approx(largest.mean(), rel=0.03)


@pytest.mark.parametrize("value", ["x", None])
def test_a_class_with_itself_has_what_its_halves_give(tmp_path: Path, value: str | None) -> None:
    """Of four examples of a class every way to choose two of them, and the whole run of eight."""
    write_planted(tmp_path / "store", 8, seed=3)
    asked = {"key": "topic", "value_a": value, "value_b": value} if value else {}
    with moedb.open(tmp_path / "store") as database:
        found = database.resampled(null=Null(3000)).query("overlap", **asked, m=3)
        counts = database.sql(
            "select example_id, expert, n_decisions from example_routing "
            "join example_labels using (run_id, example_id) where key = 'topic'"
            + (f" and value = '{value}'" if value else "")
        ).df()
    assert f"two random halves of {'topic x' if value else 'all tokens'}, 3000 t" in found.footer
    (row,) = found.df().itertuples()
    examples = counts["example_id"].unique()
    seen: dict[str, list[float]] = {"jaccard": [], "weighted_jaccard": []}
    for half in combinations(examples, len(examples) // 2):
        is_in = counts["example_id"].isin(half)
        sides = [
            counts[of].groupby("expert")["n_decisions"].sum().reindex(range(6), fill_value=0)
            for of in (is_in, ~is_in)
        ]
        top = [set(side.sort_values(ascending=False, kind="stable").index[:3]) for side in sides]
        seen["jaccard"].append(len(top[0] & top[1]) / len(top[0] | top[1]))
        a, b = (side / side.sum() for side in sides)
        seen["weighted_jaccard"].append(np.minimum(a, b).sum() / np.maximum(a, b).sum())
    assert row.jaccard_null == pytest.approx(np.mean(seen["jaccard"]), abs=0.02)
    assert row.weighted_jaccard_null == pytest.approx(np.mean(seen["weighted_jaccard"]), abs=0.01)
    assert row.weighted_jaccard_null_low >= min(seen["weighted_jaccard"]) - 1e-9
    assert row.jaccard == 1
    assert np.isnan(row.jaccard_p)
    assert np.isnan(row.jaccard_q)


def test_a_class_of_one_example_has_no_halves(tmp_path: Path) -> None:
    write_planted(tmp_path / "store", 2, seed=3)
    with moedb.open(tmp_path / "store") as database:
        resampled = database.resampled(null=Null(10))
        with pytest.raises(UsageError, match="no two halves"):
            resampled.query("overlap", key="topic", value_a="x", value_b="x")


def test_both_stand_behind_an_estimate(db: Database) -> None:
    found = db.resampled(Resampling(samples=100), Null(50)).query("concentration", run=RUN)
    at = found.columns.index("share")
    assert found.columns[at : at + 8] == [
        "share", "share_low", "share_high", "share_null", "share_null_low", "share_null_high",
        "share_p", "share_q"]  # fmt: skip
    told = found.provenance.to_dict()
    assert told["chance"]["settings"] == {"samples": 50, "seed": 0, "cluster": None}
    assert "chance: each decision takes any expert of the layer alike, 50 times" in found.footer


class TestWrongInput:
    def test_a_query_that_chance_says_nothing_of(self, db: Database) -> None:
        with pytest.raises(UsageError, match="not known of any column of expert-frequency"):
            db.resampled(null=Null()).query("expert-frequency", run=RUN)

    def test_a_query_that_has_chance_beside_it_says_where(self, db: Database) -> None:
        with pytest.raises(UsageError, match="by itself: it is in the column expected"):
            db.resampled(null=Null()).query("co-activation", run=RUN)

    def test_no_label_to_shuffle(self, db: Database) -> None:
        with pytest.raises(UsageError, match="no label to shuffle without its key"):
            db.resampled(null=Null()).query("router-confidence", run=RUN)

    def test_an_analysis_with_a_null_of_its_own(self, db: Database) -> None:
        with pytest.raises(UsageError, match="says by itself what chance gives"):
            db.resampled(null=Null()).query("label-information", run=RUN, key="kind")

    def test_two_runs(self, db: Database) -> None:
        with pytest.raises(UsageError, match="labels are shuffled within one run"):
            db.resampled(null=Null()).query("overlap", run=RUN, run_b=OTHER)

    def test_too_many_counts(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shuffled_counts, "_MOST_COUNTS", 1000)
        with pytest.raises(UsageError, match="more counts than are held at once") as caught:
            db.resampled(null=Null(200)).query("routing-by-class", run=RUN, key="kind")
        assert re.search(r"--samples [1-9]\d?, or -p layer LAYER", str(caught.value.hint))

    def test_never(self) -> None:
        with pytest.raises(UsageError, match="asked for 0 times"):
            Null(0)
