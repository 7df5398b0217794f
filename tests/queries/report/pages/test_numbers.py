"""The numbers of a page are those of the queries that it names, and of the tables of the run."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import moedb
from moedb.cli import run_cli
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.report.pages.columns import read_column, read_table
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.views import classes, pairs
from moedb.queries.report.pages.views.examples.tokens import UNMATCHED
from moedb.queries.report.pages.views.pairs import orders_of
from moedb.queries.report.pages.writing import write_page
from tests.support.drawn.pages import ReadPage
from tests.support.stores.made.hostile import RUN, RUN_B
from tests.support.stores.synthetic_ioi import CAPTURED

SURE = Resampling(samples=100)


@pytest.fixture(scope="module")
def page(store: Path, tmp_path_factory: pytest.TempPathFactory) -> ReadPage:
    path = tmp_path_factory.mktemp("pages") / "report.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, CAPTURED, resampling=SURE), path)
    return ReadPage(path)


def test_every_table_of_a_section_is_what_its_command_gives(
    page: ReadPage, store: Path, tmp_path: Path
) -> None:
    seen = 0
    for _, part in page.parts():
        if "missing" in part:
            continue
        words = shlex.split(part["command"])
        path = tmp_path / f"{seen}.parquet"
        arguments = [*words[1:], "--store", str(store), "-o", str(path)]
        assert run_cli(arguments) == 0, part["command"]
        expected = pq.read_table(path)
        read = read_table(part["table"])
        assert [*read] == expected.column_names, part["command"]
        for name, values in read.items():
            wanted = expected[name].to_pylist()
            if isinstance(values, list):
                assert values == wanted
            else:
                there = [np.nan if value is None else value for value in wanted]
                np.testing.assert_array_equal(values.astype(float), np.array(there, dtype=float))
        seen += 1
    assert seen >= 10


def test_intervals_are_where_they_were_asked_for(page: ReadPage) -> None:
    frequency = next(part for _, part in page.parts() if part["id"] == "frequency")
    assert {"frequency_low", "frequency_high"} <= {*read_table(frequency["table"])}
    described = {column["name"]: column["is"] for column in frequency["table"]["columns"]}
    assert described["frequency_low"] == "of frequency: lower end of its 95 % interval"
    assert all(described.values())
    assert "--ci bca --samples 100" in frequency["command"]
    assert "95 % intervals" in frequency["footer"]
    lens = next(part for _, part in page.parts() if part["id"] == "interventions")
    assert "-p samples 100 -p seed 0" in lens["command"]


def test_pairs_have_intervals_unless_they_are_very_many(
    page: ReadPage, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {part["id"]: part for _, part in page.parts()}
    together, across = (read_table(told[name]["table"]) for name in ("together", "across"))
    assert {"jaccard_low", "jaccard_high", "lift_low", "lift_high"} <= {*together}
    assert {"p_next_given_low", "p_next_given_high", "lift_low", "lift_high"} <= {*across}
    for rows, name in ((together, "jaccard"), (across, "p_next_given"), (across, "lift")):
        known = ~np.isnan(rows[f"{name}_low"])
        assert known.any()
        assert (rows[f"{name}_low"] <= rows[name] + 1e-12)[known].all()
        assert (rows[f"{name}_high"] >= rows[name] - 1e-12)[known].all()
    monkeypatch.setattr(pairs, "MOST_SURE", 22)
    with moedb.open(store) as database:
        section = pairs.pairs(subject_of(database, CAPTURED, resampling=SURE))
    # 20 pairs within the layers, 25 across
    assert "lift_low" in read_table(section["parts"][0]["table"])
    assert "lift_low" not in read_table(section["parts"][1]["table"])
    assert "moedb query co-activation --ci and cross-layer --ci" in section["notes"][0]


def test_what_the_run_does_not_hold_is_named(page: ReadPage) -> None:
    missing = {part["id"]: part["missing"] for _, part in page.parts() if "missing" in part}
    assert "expert-similarity" in missing["alike"] and "lens-effect" in missing
    assert "logit lens" in missing["lens-effect"] or "--lens" in missing["lens-effect"]
    assert "unembedding" in missing["promoted"]
    assert "label-experts" in missing["labelled"]


def test_the_tokens_are_those_of_the_tables(page: ReadPage, store: Path) -> None:
    view = page.views["tokens-0"]
    tokens = (
        moedb.open(store)
        .sql(
            "select token_idx, example_id, token from tokens order by example_id, position",
            run=CAPTURED,
        )
        .df()
    )
    assert read_column(view["token"]) == tokens["token"].tolist()
    assert read_column(view["example_id"]).tolist() == tokens["example_id"].tolist()
    place = {token: at for at, token in enumerate(tokens["token_idx"])}
    for layer in view["layers"]:
        shape = (len(tokens), layer["top_k"])
        expert = read_column(layer["expert"]).reshape(shape)
        weight = read_column(layer["weight"]).reshape(shape)
        rows = moedb.open(store).sql(
            "select token_idx, rank, expert, weight from routing where layer = $layer",
            {"layer": layer["layer"]},
            run=CAPTURED,
        )
        decisions = rows.fetchall()
        assert len(decisions) == expert.size
        for token, rank, chosen, factor in decisions:
            assert expert[place[token], rank] == chosen
            assert weight[place[token], rank] == np.float32(factor)


def test_contexts_and_histograms_add_up(page: ReadPage, store: Path) -> None:
    with moedb.open(store) as database:
        used = {
            (row[0], row[1]): row[2]
            for row in database.query("expert-frequency", run=CAPTURED).fetchall()
        }
        for layer in (0, 2):
            view = page.views[f"experts-{layer}"]
            scores = read_table(view["scores"]["table"])
            for expert in range(view["n_experts"]):
                own = scores["expert"] == expert
                assert scores["n_decisions"][own].sum() == used[layer, expert]
            for told, by in zip(view["contexts"], ("top", "quantile", "random"), strict=True):
                rows = database.query("top-contexts", run=CAPTURED, layer=layer, by=by, n=5).df()
                windows = told["windows"]
                lengths = read_column(windows["lengths"])
                shown, values = read_column(windows["tokens"]), read_column(windows["scores"])
                ends = np.cumsum(lengths)
                for at, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
                    routed = json.loads(rows["routed"][at])
                    assert shown[start:end] == [token for token, _ in routed]
                    there = [np.nan if score is None else score for _, score in routed]
                    np.testing.assert_array_equal(
                        values[start:end], np.array(there, dtype=np.float32)
                    )
                    marked = read_column(windows["at"])[at]
                    assert routed[marked] == [rows["token"][at], rows["score"][at]]


def test_the_agreement_of_two_runs_is_their_saturation(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, RUN, RUN_B), path)
        expected = database.query("saturation", run=RUN, run_b=RUN_B).df()
    layers = ReadPage(path).views["tokens-0"]["layers"]
    for layer, row in zip(layers, expected.itertuples(), strict=True):
        shared = read_column(layer["shared"])
        assert UNMATCHED not in shared
        assert shared.sum() == row.n_shared
        assert 0 < row.saturation < 1


def test_experts_that_go_together_stand_together() -> None:
    # two groups of experts, 0 2 4 and 1 3 5, that never mix
    a, b = [0, 0, 2, 1, 1, 3], [2, 4, 4, 3, 5, 5]
    rows = {
        "layer": np.zeros(6, int),
        "expert_a": np.array(a),
        "expert_b": np.array(b),
        "jaccard": np.full(6, 0.8),
    }
    ((found,)) = orders_of(rows, {0: 6})
    groups = [expert % 2 for expert in found["experts"]]
    assert sorted(found["experts"]) == [*range(6)]
    assert groups in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_of_very_many_rows_there_are_those_that_matter(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moedb.open(store) as database:
        subject = subject_of(database, CAPTURED)
        every = read_table(pairs.pairs(subject)["parts"][0]["table"])
        monkeypatch.setattr(pairs, "MOST_PAIRS", 10)
        monkeypatch.setattr(pairs, "LEAST_JACCARD", 0.3)
        section = pairs.pairs(subject)
        few = read_table(section["parts"][0]["table"])
        assert 0 < len(few["jaccard"]) < len(every["jaccard"])
        assert few["jaccard"].tolist() == [x for x in every["jaccard"] if x >= 0.3]
        assert section["notes"] == ["Of 20 pairs those of Jaccard index 0.3 up."]
        across = read_table(pairs.pairs(subject)["parts"][1]["table"])
        assert {*across["layer"]} == {0} and {*across["next_layer"]} == {2}
        monkeypatch.setattr(pairs, "MOST_ACROSS", 24)
        monkeypatch.setattr(pairs, "LEAST_SHARE", 0.5)
        section = pairs.pairs(subject)
        likely = read_table(section["parts"][1]["table"])["p_next_given"]
        assert 0 < len(likely) < len(across["layer"])
        assert likely.tolist() == [x for x in across["p_next_given"] if x >= 0.5]
        assert section["notes"][1].startswith("Of 25 pairs of an expert and one of the next layer")
        assert classes.keys_of(subject).shown == ("template",)
        # 3 templates, 2 layers of 5 experts
        monkeypatch.setattr(classes, "MOST_ROWS", 29)
        assert classes.keys_of(subject).shown == ()
        assert "template has 3 values" in classes.classes(subject)["notes"][0]
