"""Answers that are worked out row by row: against pandas over examples written out again."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling import asked_again
from moedb.queries.analyses.uncertainty.resampling.asked_again import AskedAgain
from moedb.queries.analyses.uncertainty.resampling.counts import of_pairs
from moedb.queries.analyses.uncertainty.resampling.counts.answers.registry import ANSWERS
from moedb.queries.analyses.uncertainty.resampling.settings import METHODS, Resampling
from moedb.queries.database import Database
from moedb.queries.questions.catalog import catalog
from tests.support.stores.made.planted import write_planted
from tests.support.stores.made.uneven import LAYERS, OTHER, RUN, write_run

LAYER = 1
N_EXPERTS, TOP_K = LAYERS[LAYER]
WEIGHTS = np.array([[0, 2, 1, 0, 3, 1, 1, 0], [1, 0, 0, 4, 0, 0, 2, 1]], dtype=float)
"""How often each example is drawn, twice."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers") / "store"
    write_run(folder, RUN, 0)
    write_run(folder, OTHER, 7)
    return folder


@pytest.fixture(scope="module")
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


def drawn_of(db: Database, name: str, **parameters: Any) -> Iterator[tuple[pd.DataFrame, Any]]:
    """For each draw the rows at a layer with its estimates, and the decisions written out again.

    Each example is there as often as it is drawn, a copy a time.
    """
    result = db.query(name, run=RUN, split="all", **parameters)
    asked = AskedAgain(
        db, catalog()[name], dict(result.provenance.parameters), result.arrow(), Resampling()
    )
    asked.weights = dict.fromkeys(asked.sides, WEIGHTS)
    rows = result.df()
    (at_layer,) = (
        (places, drawn) for places, drawn, _ in asked.drawn() if rows["layer"][places[0]] == LAYER
    )
    decisions = db.sql(
        "select * from routing join tokens using (run_id, token_idx) "
        "where run_id = $run and layer = $layer",
        {"run": RUN, "layer": LAYER},
    ).df()
    for of_draw, estimates in zip(WEIGHTS, at_layer[1], strict=True):
        times = decisions["example_id"].map(dict(enumerate(of_draw.astype(int))))
        copies = decisions.loc[decisions.index.repeat(times)].copy()
        copies["copy"] = copies.groupby(["token_idx", "rank"]).cumcount()
        found = rows.loc[at_layer[0]].reset_index(drop=True)
        found[list(catalog()[name].estimates)] = estimates
        yield found, copies


@pytest.mark.parametrize("scope", ["token", "example"])
def test_active_experts(db: Database, scope: str) -> None:
    for rows, copies in drawn_of(db, "active-experts", scope=scope):
        last = copies.groupby("example_id")["position"].transform("max")
        here = copies if scope == "example" else copies[copies["position"] == last]
        n = len(here.groupby(["example_id", "copy"]))
        active = here.drop_duplicates(["example_id", "copy", "expert"])["expert"].value_counts()
        taken = here["expert"].value_counts()
        row = rows.iloc[0]
        assert row["most"] == pytest.approx(active.max() / n)
        for percent in (50, 90):
            often = active.index[100 * active >= percent * n]
            assert row[f"experts_{percent}"] == len(often)
            assert row[f"share_{percent}"] == pytest.approx(taken[often].sum() / len(here))


def test_top_tokens(db: Database) -> None:
    for rows, copies in drawn_of(db, "top-tokens", min_count=0, n=3):
        tokens = copies[copies["rank"] == 0]
        for row in rows.itertuples():
            own = copies[copies["token_id"] == row.token_id]
            chose = (own["expert"] == row.expert).sum()
            n_token = (tokens["token_id"] == row.token_id).sum()
            frequency = (copies["expert"] == row.expert).sum() / len(tokens)
            wanted = chose / n_token if n_token else np.nan
            assert row.rate == pytest.approx(wanted, nan_ok=True)
            lift = wanted / frequency if frequency else np.nan
            assert row.lift == pytest.approx(lift, nan_ok=True)


@pytest.mark.parametrize("min_count", [0, 3])
def test_vocabulary_specialization(db: Database, min_count: int) -> None:
    for rows, copies in drawn_of(db, "vocabulary-specialization", min_count=min_count):
        counts = copies.pivot_table(
            index="token_id", columns="expert", values="rank", aggfunc="count", fill_value=0
        )
        n_token = counts.sum(axis=1) / TOP_K
        counts, n_token = counts[n_token >= min_count], n_token[n_token >= min_count]
        row = rows.iloc[0]
        favoured = counts.max(axis=1)
        assert row["specialization"] == pytest.approx((favoured / n_token).mean())
        assert row["weighted"] == pytest.approx(favoured.sum() / n_token.sum())
        assert row["baseline"] == pytest.approx(counts.sum().max() / n_token.sum())


def test_saturation(db: Database) -> None:
    theirs = db.sql(
        "select token_idx, rank, expert from routing where run_id = $run and layer = $layer",
        {"run": OTHER, "layer": LAYER},
    ).df()
    chosen = theirs.groupby("token_idx")["expert"].apply(set)
    first = theirs[theirs["rank"] == 0].set_index("token_idx")["expert"]
    for rows, copies in drawn_of(db, "saturation", run_b=OTHER):
        shared = sum(
            row.expert in chosen[row.token_idx] for row in copies.itertuples()
        )  # both runs are over the same tokens
        own = copies[copies["rank"] == 0]
        row = rows.iloc[0]
        assert row["saturation"] == pytest.approx(shared / len(copies))
        same = own["expert"].to_numpy() == first[own["token_idx"]].to_numpy()
        assert row["first_saturation"] == pytest.approx(same.mean())


def test_pair_specialization(db: Database) -> None:
    labels = db.sql(
        "select distinct token_idx, value from labels where run_id = $run and key = 'kind'",
        {"run": RUN},
    ).df()
    for rows, copies in drawn_of(db, "pair-specialization", key="kind", min_decisions=1):
        labelled = copies.merge(labels, on="token_idx")
        alone = labelled.groupby(["expert", "value"]).size().unstack(fill_value=0)
        of_class = alone.sum() / alone.sum().sum()
        pairs = labelled.groupby(["token_idx", "copy", "value"])["expert"].apply(set)
        for row in rows.itertuples():
            both = pd.Series(
                {
                    value: sum({row.expert_a, row.expert_b} <= experts for experts in of_value)
                    for value, of_value in pairs.groupby("value")
                }
            )
            if not both.sum():
                assert np.isnan(row.exclusivity)
                continue
            shares = both / both.sum()
            top = shares.idxmax()
            assert row.exclusivity == pytest.approx(shares.max())
            entropy = -sum(share * np.log2(share) for share in shares if share)
            assert row.conditional_entropy == pytest.approx(entropy, abs=1e-12)
            assert row.pmi == pytest.approx(np.log2(shares[top] / of_class[top]))
            own = [alone.loc[each].max() / alone.loc[each].sum()
                   for each in (row.expert_a, row.expert_b)]  # fmt: skip
            assert row.gain == pytest.approx(shares.max() - max(own))
            products = alone.loc[row.expert_a] * alone.loc[row.expert_b] / of_class
            assert row.independent == pytest.approx(products[top] / products.sum())


COUNTED: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("co-activation", {}),
    ("co-activation-adjacent", {"layer": 4}),
    ("concentration", {}),
    ("cross-layer", {}),
    ("cross-layer", {"pairs": "rank-aligned"}),
    ("expert-frequency", {}),
    ("expert-specialization", {"key": "pos", "min_decisions": 1}),
    ("expert-specialization", {"key": "lang", "min_decisions": 0}),
    ("load-balance", {}),
    ("routing-by-class", {"key": "kind"}),
    ("routing-by-class", {"key": "pos", "layer": 4}),
)
"""The queries of counted views that numpy answers, with parameters."""


@pytest.mark.parametrize(("name", "parameters"), COUNTED, ids=str)
def test_numpy_gives_of_draws_what_the_sql_gives(
    db: Database, monkeypatch: pytest.MonkeyPatch, name: str, parameters: Mapping[str, Any]
) -> None:
    weights = np.random.default_rng(4).integers(0, 4, (100, 8)).astype(float)
    weights[0] = [1, 0, 0, 0, 0, 0, 0, 0]  # most rows are not there
    result = db.query(name, run=RUN, split="all", **parameters)
    query, values = catalog()[name], dict(result.provenance.parameters)
    found = []
    for answers in (ANSWERS, {}):
        monkeypatch.setattr(asked_again, "ANSWERS", answers)
        asked = AskedAgain(db, query, values, result.arrow(), Resampling("percentile", 100))
        asked.weights = dict.fromkeys(asked.sides, weights)
        drawn = np.full((100, result.arrow().num_rows, len(query.estimates)), np.nan)
        for places, of_layer, _ in asked.drawn():
            drawn[:, places] = of_layer
        found.append(drawn)
    assert np.isfinite(found[0]).any()
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


GIVEN: Mapping[str, Mapping[str, Any]] = {
    "active-experts": {},
    "co-activation": {},
    "co-activation-adjacent": {},
    "concentration": {},
    "expert-frequency": {},
    "expert-specialization": {"key": "topic", "min_decisions": 1},
    "load-balance": {},
    "pair-specialization": {"key": "topic", "min_decisions": 1},
    "routing-by-class": {"key": "topic"},
    "saturation": {"run_b": "text-0000000a1d"},
    "top-tokens": {"min_count": 0},
    "vocabulary-specialization": {"min_count": 0},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By the number of examples a store of two runs that are all alike."""
    folder = tmp_path_factory.mktemp("edges")
    for n in (1, 4):
        write_planted(folder / str(n), n, seed=2)
        write_planted(folder / str(n), n, seed=2, run_id="text-0000000b2e")
    return {n: folder / str(n) for n in (1, 4)}


def test_every_answer_is_tried_at_its_edges() -> None:
    assert {*GIVEN, "cross-layer"} == set(ANSWERS)


def test_one_layer_goes_with_no_other(stores: Mapping[int, Path]) -> None:
    with moedb.open(stores[4]) as database:
        assert database.resampled().query("cross-layer").df().empty


@pytest.mark.parametrize("name", GIVEN)
class TestEdges:
    def test_one_example_has_no_intervals_and_says_so(
        self, stores: Mapping[int, Path], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with moedb.open(stores[1]) as database, caplog.at_level(logging.WARNING):
            given = {"run": "text-0000000b2e", **GIVEN[name]}
            rows = database.resampled().query(name, **given).df()
        assert len(rows)
        for estimate in catalog()[name].estimates:
            assert rows[estimate].notna().any() or estimate == "normalized_entropy"
            assert rows[[f"{estimate}_low", f"{estimate}_high"]].isna().all().all()
        assert "all examples are of one cluster" in caplog.text

    def test_ends_are_on_either_side_and_possible(
        self, stores: Mapping[int, Path], name: str
    ) -> None:
        query = catalog()[name]
        with moedb.open(stores[4]) as database:
            for method in METHODS:
                resampled = database.resampled(Resampling(method, samples=100))
                rows = resampled.query(name, run="text-0000000b2e", **GIVEN[name]).df()
                for estimate in query.estimates:
                    low, high = rows[f"{estimate}_low"], rows[f"{estimate}_high"]
                    assert (low.isna() == high.isna()).all()
                    assert not (low > high).any()
                    if estimate in query.shares:
                        assert not (low < 0).any()
                        assert not (high > 1).any()


def test_what_is_all_alike_is_as_sure_as_its_examples_allow(db: Database) -> None:
    rows = db.resampled().query("saturation", run=RUN, run_b=RUN, split="all").df()
    assert (rows["saturation"] == 1).all()
    squared = 1.959964**2
    np.testing.assert_allclose(rows["saturation_low"], 8 / (8 + squared), rtol=1e-5)
    assert (rows["saturation_high"] == 1).all()


def test_vocabularies_are_left_out_and_never_drawn(db: Database) -> None:
    asked = {"run": RUN, "split": "all", "min_count": 2}
    found = db.resampled().query("vocabulary-specialization", **asked)
    assert "95 % intervals: jackknife over 8 examples" in found.footer
    rows = found.df()
    assert (rows["specialization_low"] <= rows["specialization"]).all()
    assert (rows["specialization"] <= rows["specialization_high"]).all()
    compared = db.compare("vocabulary-specialization", "layer=1", "layer=5", **asked)
    assert "jackknife" in compared.footer
    (row,) = compared.df().itertuples()
    of_layers = rows.set_index("layer")["weighted"]
    assert row.weighted_difference == pytest.approx(of_layers[1] - of_layers[5])
    assert row.weighted_difference_low < row.weighted_difference < row.weighted_difference_high


def test_two_layers_are_compared(db: Database) -> None:
    rows = db.compare("saturation", "layer=5", "layer=7", run=RUN, run_b=OTHER, split="all").df()
    plain = db.query("saturation", run=RUN, run_b=OTHER, split="all").df().set_index("layer")
    (row,) = rows.itertuples()
    assert row.saturation_difference == pytest.approx(
        plain["saturation"][5] - plain["saturation"][7]
    )


def test_too_many_values_of_pairs_are_refused(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_pairs, "_MOST_CELLS", 3000)
    with pytest.raises(UsageError, match="the pairs of 3 values at 5 layers are more") as caught:
        db.resampled().query("pair-specialization", run=RUN, key="kind", min_decisions=1)
    assert caught.value.hint == "-p layer LAYER"
