"""Named queries over draws, against the same queries over parts of a run, and against numpy."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

import moedb
from moedb.errors import ParameterError, UsageError
from moedb.queries.analyses.uncertainty.resampling.asked_again import (
    AskedAgain,
    can_be_asked_again,
)
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.database import Database
from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog
from tests.support.stores.made.uneven import LAYERS, OTHER, RUN, write_run

ASKED: Mapping[str, Mapping[str, Any]] = {
    "active-experts": {},
    "co-activation": {},
    "co-activation-adjacent": {},
    "concentration": {},
    "cross-layer": {},
    "expert-frequency": {},
    "expert-specialization": {"key": "pos"},
    "load-balance": {},
    "overlap": {"key": "kind", "value_a": "a", "value_b": "b"},
    "pair-specialization": {"key": "kind", "min_decisions": 1},
    "router-confidence": {"key": "kind"},
    "routing-by-class": {"key": "kind"},
    "saturation": {"run_b": OTHER},
    "top-tokens": {"n": 1000, "min_count": 0},
    "vocabulary-specialization": {"min_count": 0},
}
MORE = [
    *ASKED.items(),
    ("cross-layer", {"pairs": "rank-aligned"}),
    ("cross-layer", {"layer": 5}),
    ("overlap", {"run_b": OTHER}),
    ("overlap", {"key": "kind", "value_a": "a", "m": 1}),
    ("router-confidence", {}),
    ("routing-by-class", {"key": "pos", "layer": 4}),
    ("routing-by-class", {"key": "lang"}),
    ("expert-specialization", {"key": "kind", "min_decisions": 1}),
    ("active-experts", {"scope": "example"}),
    ("active-experts", {"position": 1}),
    ("pair-specialization", {"key": "pos", "min_decisions": 0, "layer": 1}),
    ("pair-specialization", {"key": "lang", "min_decisions": 0}),
    ("top-tokens", {"n": 1000, "min_count": 0, "layer": 5, "by": "lift"}),
    ("vocabulary-specialization", {"min_count": 0, "of": "next"}),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resampling") / "store"
    write_run(folder, RUN, 0)
    write_run(folder, OTHER, 7)
    return folder


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


def estimates_of(db: Database, name: str, weights: np.ndarray, **parameters: Any) -> np.ndarray:
    """(draw, row, estimate) of a query over all splits, with a weight for each example."""
    result = db.query(name, run=RUN, split="all", **parameters)
    values = dict(result.provenance.parameters)
    asked = AskedAgain(db, catalog()[name], values, result.arrow(), Resampling())
    asked.weights = dict.fromkeys(asked.sides, weights)
    found = np.full((len(weights), len(result.fetchall()), len(catalog()[name].estimates)), np.nan)
    for places, drawn, _ in asked.drawn():
        found[:, places] = drawn
    return found


def test_every_query_with_estimates_is_tried() -> None:
    known = {name for name, query in catalog().items() if query.estimates}
    assert {*ASKED, "ioi-logit-diff"} == known
    assert all(can_be_asked_again(catalog()[name]) for name in known)


@pytest.mark.parametrize(("name", "parameters"), MORE, ids=str)
def test_examples_that_are_left_out_might_as_well_not_be_there(
    db: Database, name: str, parameters: Mapping[str, Any]
) -> None:
    splits = np.array([split for (split,) in db.sql(
        "select split from examples where run_id = $run order by example_id", {"run": RUN}
    ).fetchall()])  # fmt: skip
    kept = {"clean": splits == "clean", "held": splits == "held", None: splits != "corrupted"}
    weights = np.array([np.ones(8), *kept.values(), 3 * np.ones(8)], dtype=float)
    query = catalog()[name]
    everything = db.query(name, run=RUN, split="all", **parameters).df()
    found = estimates_of(db, name, weights, **parameters)
    keys, columns = list(query.row_columns), list(query.estimates)
    np.testing.assert_allclose(found[0], everything[columns].astype(float), rtol=1e-9)
    sizes = [at for at, column in enumerate(columns) if column != "sd_entropy"]
    # but for the n - 1 of a sample, how often all are there does not matter
    np.testing.assert_allclose(found[-1][:, sizes], found[0][:, sizes], rtol=1e-9)
    for at, split in enumerate(kept, 1):
        bound = bind(query, {"run": RUN, "split": split, **parameters})
        alone = db._engine.run(query.sql, bound).df()
        wanted = everything[keys].merge(alone, on=keys, how="left")[columns].astype(float)
        absent = [column for column in columns if column in query.absent]
        wanted[absent] = wanted[absent].fillna(0)
        if name == "top-tokens":  # a token that is there and never chose the expert has rate 0
            is_seen = everything["token_id"].isin(alone["token_id"])
            wanted = wanted.where(wanted.notna() | ~is_seen.to_numpy()[:, None], 0)
        np.testing.assert_allclose(found[at], wanted, rtol=1e-9)


def of_examples(db: Database) -> tuple[pd.DataFrame, np.ndarray]:
    """The decisions of the run with their examples, and the tokens of each example."""
    decisions = db.sql(
        "select * from routing join tokens using (run_id, token_idx) where run_id = $run",
        {"run": RUN},
    ).df()
    tokens = db.sql("from tokens where run_id = $run", {"run": RUN}).df()
    return decisions, np.bincount(tokens["example_id"])


def test_an_example_that_is_drawn_twice_counts_twice(db: Database) -> None:
    weights = np.array([[0, 2, 1, 0, 3, 1, 1, 0], [1, 0, 0, 4, 0, 0, 2, 1]], dtype=float)
    decisions, n_tokens = of_examples(db)
    found = estimates_of(db, "expert-frequency", weights)
    rows = db.query("expert-frequency", run=RUN, split="all").df()
    for draw, of_draw in enumerate(weights):
        counted = decisions.assign(weight=of_draw[decisions["example_id"]])
        sums = counted.groupby(["layer", "expert"])["weight"].sum()
        wanted = [sums.get((row.layer, row.expert), 0) / (of_draw @ n_tokens)
                  for row in rows.itertuples()]  # fmt: skip
        np.testing.assert_allclose(found[draw, :, 0], wanted)

    pairs = db.query("co-activation", run=RUN, split="all").df()
    drawn = estimates_of(db, "co-activation", weights)
    chosen = decisions.groupby(["layer", "token_idx", "example_id"])["expert"].apply(set)
    for at, row in pairs.iterrows():
        if row["layer"] != 1:
            continue
        for draw, of_draw in enumerate(weights):
            both = one = 0.0
            for (layer, _, example), experts in chosen.items():
                if layer == 1:
                    both += of_draw[example] * ({row["expert_a"], row["expert_b"]} <= experts)
                    one += of_draw[example] * (row["expert_a"] in experts)
            assert drawn[draw, at, 0] == pytest.approx(both / one if one else 0)


@pytest.mark.model
def test_answers_of_a_prompt_that_is_drawn_twice_count_twice(mini_store: Path) -> None:
    with moedb.open(mini_store) as database:
        result = database.query("ioi-logit-diff", key="template")
        rows, values = result.df(), dict(result.provenance.parameters)
        query = catalog()["ioi-logit-diff"]
        asked = AskedAgain(database, query, values, result.arrow(), Resampling())
        prompts = database.sql(
            "select logit_diff, template.value from predictions "
            "join example_labels as template using (run_id, example_id) "
            "join examples using (run_id, example_id) "
            "where split <> 'corrupted' and template.key = 'template' and condition_id = 0 "
            "and run_id = $run order by example_id",
            {"run": values["run"]},
        ).df()
        weights = np.random.default_rng(1).integers(0, 3, (4, len(prompts))).astype(float)
        asked.weights = {"run": weights}
        ((places, drawn, _),) = asked.drawn()
    assert places.tolist() == list(range(len(rows)))
    at = list(query.estimates).index("mean_logit_diff")
    for draw, of_draw in enumerate(weights):
        for place, value in enumerate(rows["value"]):
            own = of_draw * (prompts["value"] == value if value != "all" else 1)
            wanted = own @ prompts["logit_diff"] / own.sum() if own.sum() else np.nan
            np.testing.assert_allclose(drawn[draw, place, at], wanted, rtol=1e-9)


def test_two_runs_of_the_same_examples_are_drawn_together(db: Database) -> None:
    result = db.query("overlap", run=RUN, run_b=OTHER, split="all")
    values = dict(result.provenance.parameters)
    asked = AskedAgain(db, catalog()["overlap"], values, result.arrow(), Resampling(samples=100))
    assert list(asked.weights) == ["run", "run_b"]
    np.testing.assert_array_equal(asked.weights["run"], asked.weights["run_b"])
    assert asked.weights["run"].shape == (100 + 8, 8)
    assert asked.n_clusters == 8


class TestIntervals:
    def test_percentiles_are_those_of_scipy(self, db: Database) -> None:
        resampled = db.resampled(Resampling("percentile", samples=2000, seed=3))
        rows = resampled.query("expert-frequency", run=RUN, split="all").df()
        decisions, n_tokens = of_examples(db)
        chosen = decisions.query("layer == 1 and expert == 2").groupby("example_id").size()
        counts = chosen.reindex(range(8), fill_value=0).to_numpy()
        wanted = scipy_bootstrap(
            (counts, n_tokens),
            lambda n, tokens, axis: n.sum(axis) / tokens.sum(axis),
            paired=True,
            n_resamples=2000,
            method="percentile",
            random_state=np.random.default_rng(1),
        ).confidence_interval
        (row,) = rows.query("layer == 1 and expert == 2").itertuples()
        width = wanted.high - wanted.low
        assert row.frequency_low == pytest.approx(wanted.low, abs=0.12 * width)
        assert row.frequency_high == pytest.approx(wanted.high, abs=0.12 * width)

    def test_columns_stand_behind_their_estimates_and_rows_in_their_order(
        self, db: Database
    ) -> None:
        plain = db.query("routing-by-class", run=RUN, key="kind")
        found = db.resampled().query("routing-by-class", run=RUN, key="kind")
        assert found.columns[5:9] == ["rate", "rate_low", "rate_high", "share"]
        pd.testing.assert_frame_equal(found.df()[plain.columns], plain.df())
        assert dict(zip(found.columns, found.types, strict=True))["layer"] == "INTEGER"

    def test_the_seed_and_nothing_else_changes_them(self, db: Database) -> None:
        def asked(seed: int) -> pd.DataFrame:
            resampled = db.resampled(Resampling(samples=200, seed=seed))
            return resampled.query("load-balance", run=RUN).df()

        pd.testing.assert_frame_equal(asked(1), asked(1))
        assert not asked(1).equals(asked(2))

    def test_provenance_says_how_and_of_what(self, db: Database) -> None:
        found = db.resampled(Resampling(samples=300, seed=4)).query("load-balance", run=RUN)
        line = "95 % intervals: BCa bootstrap over 6 examples, 300 draws, seed 4"
        assert line in found.provenance.footer()
        assert found.provenance.to_dict()["intervals"]["settings"] == {
            "method": "bca", "samples": 300, "seed": 4, "cluster": None}  # fmt: skip

    def test_what_is_never_seen_has_an_upper_end(self, db: Database) -> None:
        rows = db.resampled().query("expert-frequency", run=RUN).df()
        never = rows[rows["n_decisions"] == 0]
        assert len(never) > LAYERS[4][0] // 2
        assert (never["frequency_low"] == 0).all()
        # Wilson's upper end of none of six
        np.testing.assert_allclose(never["frequency_high"], 0.390334, rtol=1e-5)

    def test_what_never_varies_in_a_class_is_as_sure_as_its_examples_allow(
        self, db: Database
    ) -> None:
        rows = db.resampled().query("routing-by-class", run=RUN, split="all", key="kind").df()
        never = rows[(rows["rate"] == 0) & (rows["layer"] == 4)].groupby("value")["rate_high"]
        squared = 1.959964**2
        # the run itself has b
        for value, n in {"a": 4, "b": 8, "c": 2}.items():
            assert never.max()[value] == pytest.approx(squared / (n + squared), rel=1e-5)

    def test_a_row_that_is_barely_there_has_an_interval(self, db: Database) -> None:
        rows = db.query("expert-specialization", run=RUN, key="kind", layer=5).df()
        fewest = int(rows["n_decisions"].min())
        asked = {"run": RUN, "key": "kind", "layer": 5, "min_decisions": fewest}
        found = db.resampled().query("expert-specialization", **asked).df()
        barely = found[found["n_decisions"] == fewest]
        assert len(barely)
        assert (barely["exclusivity_low"] <= barely["exclusivity_high"]).all()

    def test_few_clusters_are_warned_of(
        self, db: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            db.resampled().query("load-balance", run=RUN)
        assert "fewer than 30 clusters, and there are 6" in caplog.text

    def test_a_single_cluster_has_none(
        self, db: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            rows = db.resampled().query("expert-frequency", run=RUN, split="corrupted")
            one = db.resampled(Resampling(cluster="other")).query(
                "load-balance", run=RUN, split="corrupted"
            )
        assert rows.df()["share_low"].notna().all()
        assert one.df()["gini_low"].isna().all()
        assert "all examples are of one cluster by other" in caplog.text


class TestWrongInput:
    def test_a_query_without_estimates_says_so(self, db: Database) -> None:
        with pytest.raises(UsageError, match="routing-by-example has no intervals"):
            db.resampled().query("routing-by-example", run=RUN, key="kind")

    def test_an_analysis_that_has_its_own_says_so(self, db: Database) -> None:
        with pytest.raises(UsageError, match="says by itself how sure it is"):
            db.resampled().query("label-information", run=RUN, key="kind", permutations=0)

    def test_an_unknown_cluster_names_those_there_are(self, db: Database) -> None:
        resampled = db.resampled(Resampling(cluster="knid"))
        with pytest.raises(ParameterError, match="did you mean kind"):
            resampled.query("expert-frequency", run=RUN)

    def test_two_values_of_a_cluster_are_refused(self, db: Database) -> None:
        resampled = db.resampled(Resampling(cluster="kind"))
        with pytest.raises(ParameterError, match="one value for each example"):
            resampled.query("expert-frequency", run=RUN)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"method": "bcaa"}, "did you mean bca"),
            ({"samples": 10}, "samples is 10, not from 100 to 100000"),
            ({"seed": -1}, "seed is -1"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, given: Any, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            Resampling(**given)
