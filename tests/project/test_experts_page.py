"""The SQL of the pages on probes and on labels, over a store whose answers are computed anew."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import t as student
from sklearn.metrics import balanced_accuracy_score, f1_score

import moedb
from moedb.cli import run_cli
from moedb.commands.studies.command_lines import filled
from moedb.commands.studies.pages import write_page
from moedb.commands.studies.study_file import read_study
from moedb.queries.database import Database
from moedb.schemas.additions import Addition
from moedb.schemas.tables import LABEL_EFFECTS
from moedb.store.writing.complete.additions import add
from moedb.store.writing.tables.parquet import arrow_schema
from tests.experts.probing.planted import DENSE_RUN, RUN, write

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
SAMPLE = ["key", "value", "protocol", "permutation", "k"]
TOTAL_RUN = "text-aaaaaaaaaa"
SETTINGS: dict[str, Any] = {"k": [1, 3], "min_tokens": 30, "resamples": 20}


def add_twin(store: Path, run: str, n_groups: int) -> None:
    write(store, dense=True, run=run)
    groups = {"groups": n_groups, "width": 3, **SETTINGS}
    moedb.probe(run, "sign", store, name="whole", **SETTINGS)
    moedb.probe(run, "sign", store, name="groups", **groups)
    moedb.probe(run, "sign", store, name="matched", tokens_of=RUN, **groups)


def verdicts() -> pd.DataFrame:
    """What a reader says of two experts' contexts, and with another expert's label."""
    random = np.random.default_rng(5)
    places = [(3, expert, kind) for expert in (0, 2) for kind in ("detection", "fuzzing")]
    rows = pd.DataFrame(
        [place for place in places for _ in range(24)], columns=["layer", "expert", "kind"]
    )
    rows["is_positive"] = np.arange(len(rows)) % 4 == 0
    rows["says_yes"] = np.where(random.random(len(rows)) < 0.7, rows["is_positive"], True)
    rows["other_says_yes"] = random.random(len(rows)) < 0.5
    return rows


def effects() -> pd.DataFrame:
    """Of one expert on eight documents, and of a control on tokens of its own."""
    rows = [("own", 2, place, place % 4 > 1, place % 2, -0.1 * place) for place in range(32)]
    rows += [("control-own", 1, 40 + place, False, None, -0.5) for place in range(8)]
    found = pd.DataFrame(
        rows, columns=["role", "ablated", "token_idx", "routed", "fits", "next_change"]
    )
    found["cluster"] = found["example_id"] = found["token_idx"] // 4
    found["chosen"] = found["routed"] = found["routed"].astype(int)
    same = {"layer": 3, "expert": 2, "effect_set": "e", "label_set": "theirs", "kind": "fuzzing"}
    return found.assign(**same, n_following=1, following_change=found["next_change"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the probes of a mixture and of two twins, labels, and what ablation changes."""
    folder = tmp_path_factory.mktemp("page")
    made = folder / "store"
    write(made)
    moedb.probe(RUN, "sign", made, name="experts", **SETTINGS)
    add_twin(made, DENSE_RUN, 4)
    add_twin(made, TOTAL_RUN, 3)
    lines = [{"layer": 3, "expert": expert, "label": f"label {expert}"} for expert in (0, 2)]
    lines += verdicts().to_dict("records")
    text = "\n".join(map(json.dumps, lines))
    (folder / "theirs.jsonl").write_text(text, encoding="utf-8")
    moedb.import_labels(RUN, folder / "theirs.jsonl", made, name="theirs")
    fields = [field for field in arrow_schema(LABEL_EFFECTS) if field.name != "run_id"]
    rows = effects().astype(object).replace({np.nan: None}).to_dict("records")
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    add(made, RUN, Addition("e", "label-effects"), {"label_effects": [table]})
    return made


@pytest.fixture(scope="module")
def database(store: Path) -> Iterator[Database]:
    with moedb.open(store) as opened:
        yield opened


def table(database: Database, file: str, **given: str) -> pd.DataFrame:
    """The rows of a file of SQL, with values as they are typed."""
    sql = (RESULTS / "sql" / file).read_text(encoding="utf-8")
    return database.sql(sql, given).df()


RUNS = {"mixture": RUN, "active": DENSE_RUN, "total": TOTAL_RUN}


def scores_of(database: Database, run: str, probe: str) -> pd.DataFrame:
    scores = database.sql("from probe_scores").df()
    return scores[(scores["run_id"] == run) & (scores["probe"] == probe)]


def chosen_of(scores: pd.DataFrame) -> "pd.Series[Any]":
    """The probe of the candidate that the selection split chooses."""
    order = ["selection_f1", "n_test", "layer", "candidate"]
    return scores.sort_values(order, ascending=[False, False, True, True]).iloc[0]


def test_leads_are_of_what_the_probes_say(database: Database) -> None:
    leads = table(database, "experts/leads.sql", most="3", **RUNS)
    assert len(leads) == 28

    def counted(scores: pd.DataFrame, row: "pd.Series[Any]", value: str, shuffled: bool) -> float:
        rows = scores[(scores["protocol"] == row["protocol"]) & (scores["k"] == row["k"])]
        rows = rows[((rows["permutation"] > 0) == shuffled) & (rows["value"] == value)]
        if row["counted"] == "best on test":
            return float(rows["f1"].max())
        if row["counted"] == "chosen":
            return float(chosen_of(rows)["f1"])
        return float(np.average(rows["f1"], weights=rows["n_test"]))

    for _, row in leads.iterrows():
        experts = scores_of(database, RUN, "experts")
        control = scores_of(database, RUNS[row["twin"]], row["control"])
        lead = {
            shuffled: [
                counted(experts, row, value, shuffled) - counted(control, row, value, shuffled)
                for value in ("planted", "other")
            ]
            for shuffled in (False, True)
        }
        assert row["n_concepts"] == 2
        assert row["lead"] == pytest.approx(np.mean(lead[False]))
        assert row["lead_shuffled"] == pytest.approx(np.mean(lead[True]))
        error = np.std(lead[False], ddof=1) / np.sqrt(2)
        assert row["lead_high"] - row["lead"] == pytest.approx((1.96 + 2.37) * error)
        assert row["lead"] - row["lead_low"] == pytest.approx((1.96 + 2.37) * error)
    for df in (13, 28):
        assert 1.96 + 2.37 / df == pytest.approx(student.ppf(0.975, df), abs=0.02)


def test_means_are_over_concepts(database: Database) -> None:
    means = table(database, "experts/means.sql", most="3", **RUNS).set_index(
        ["model", "probe", "protocol", "k"]
    )
    assert len(means) == 7 * 2 * 2
    assert means.index[0] == ("mixture", "experts", "documents", 1)
    for (model, probe, protocol, k), row in means.iterrows():
        scores = scores_of(database, RUNS[model], probe)
        scores = scores[(scores["protocol"] == protocol) & (scores["k"] == k)]
        true = [rows for _, rows in scores[scores["permutation"] == 0].groupby("value")]
        shuffled = [
            rows for _, rows in scores[scores["permutation"] > 0].groupby(["value", "permutation"])
        ]
        assert row["best_on_test"] == pytest.approx(np.mean([each["f1"].max() for each in true]))
        assert row["mean_each"] == pytest.approx(np.mean([each["f1"].mean() for each in true]))
        assert row["chosen"] == pytest.approx(np.mean([chosen_of(each)["f1"] for each in true]))
        assert row["accuracy_shuffled"] == pytest.approx(
            np.mean([chosen_of(each)["balanced_accuracy"] for each in shuffled])
        )


def test_pairs_are_of_an_expert_and_the_group_on_its_tokens(database: Database) -> None:
    pairs = table(database, "experts/pairs.sql", most="3", **RUNS)
    at = ["layer", "candidate", *SAMPLE]
    assert len(pairs) == 2 * 2 * 2
    for _, row in pairs.iterrows():
        experts, groups = (
            scores[scores["protocol"] == "documents"].set_index(at)["f1"]
            for scores in (
                scores_of(database, RUN, "experts"),
                scores_of(database, RUNS[row["twin"]], "matched"),
            )
        )
        both = pd.DataFrame({"experts": experts, "groups": groups}).reset_index()
        is_shuffled = row["labels"] == "shuffled"
        rows = both[(both["k"] == row["k"]) & ((both["permutation"] > 0) == is_shuffled)]
        assert row["n_pairs"] == len(rows) == 16
        assert row["lead"] == pytest.approx((rows["experts"] - rows["groups"]).mean())
        ahead = (rows["experts"] > rows["groups"]) + 0.5 * (rows["experts"] == rows["groups"])
        assert row["percent_ahead"] == pytest.approx(100 * ahead.mean(), abs=0.5)


def test_probes_on_an_experts_tokens_have_its_tokens(database: Database) -> None:
    twins = table(database, "experts/twins.sql", key="sign", **RUNS).set_index("twin")
    by_concept = table(database, "experts/by-concept.sql", key="sign", **RUNS)
    at = ["layer", "candidate", *SAMPLE]
    counts = ["n_train", "n_selection", "n_test", "n_yes"]
    for twin in ("active", "total"):
        expert, group = (
            scores_of(database, run, probe).set_index(at)[counts]
            for probe, run in (("experts", RUN), ("matched", RUNS[twin]))
        )
        both = expert.join(group.add_suffix("_group"), how="inner")
        same = (both[counts].to_numpy() == both[[f"{name}_group" for name in counts]]).all(axis=1)
        row = twins.loc[twin]
        assert row["n_probes"] == len(both) > 0
        assert row["n_same"] == same.sum()
        assert row["n_concepts"] == row["n_of_key"] == len(by_concept) == 2
        overlaps = [
            max(each["f1_low"], each[f"{twin}_low"]) <= min(each["f1_high"], each[f"{twin}_high"])
            for _, each in by_concept.iterrows()
        ]
        assert row["n_overlap"] == sum(overlaps)


def test_each_concept_has_what_is_chosen_for_it(database: Database) -> None:
    by_concept = table(database, "experts/by-concept.sql", key="sign", **RUNS)
    concepts = table(database, "experts/concepts.sql", key="sign", **RUNS)
    labels = database.sql(f"from labels where run_id = '{RUN}' and key = 'sign'").df()
    assert by_concept["f1"].is_monotonic_decreasing
    for _, row in by_concept.iterrows():
        found = {}
        for name, run, probe in (
            ("f1", RUN, "experts"),
            ("active", DENSE_RUN, "matched"),
            ("total", TOTAL_RUN, "matched"),
        ):
            scores = scores_of(database, run, probe)
            scores = scores[(scores["protocol"] == "documents") & (scores["permutation"] == 0)]
            scores = scores[(scores["k"] == 1) & (scores["value"] == row["value"])]
            found[name] = chosen_of(scores)
            assert row[name] == found[name]["f1"]
            assert row[f"{name}_low"] == found[name]["f1_low"]
        assert (row["layer"], row["expert"]) == (found["f1"]["layer"], found["f1"]["candidate"])
        (told,) = [each for _, each in concepts.iterrows() if each["value"] == row["value"]]
        of_value = labels[labels["value"] == row["value"]]
        assert told["n_tokens"] == len(of_value)
        assert told["n_documents"] == of_value["example_id"].nunique()


def test_neurons_that_tell_a_concept_are_counted(database: Database) -> None:
    neurons = table(database, "experts/neurons.sql", **RUNS).set_index(["model", "probe"])
    assert len(neurons) == 7
    at = ["layer", "candidate", "neuron"]
    for (model, probe), row in neurons.iterrows():
        scores = scores_of(database, RUNS[model], probe)
        scores = scores[(scores["protocol"] == "documents") & (scores["k"] == 1)]
        asked = scores[scores["permutation"] == 0]
        told = asked[asked["balanced_accuracy"] >= 0.8].groupby(at).size()
        assert row["n_neurons"] == len(asked.groupby(at))
        assert row["n_telling"] == len(told)
        assert row["tell_one"] == (told == 1).sum()
        if len(told):
            assert row["percent_one"] == pytest.approx(100 * (told == 1).mean(), abs=0.5)
        by_chance = scores[(scores["permutation"] > 0) & (scores["balanced_accuracy"] >= 0.8)]
        assert row["telling_shuffled"] == len(by_chance.groupby(at))
    assert neurons.loc[("mixture", "experts"), "n_telling"] > 0
    best = table(database, "experts/specialists.sql", mixture=RUN, least="1")
    assert len(best) > 0 and best["balanced_accuracy"].is_monotonic_decreasing
    assert (best["tells"] == 1).all() and (best["n_yes"] >= 2).all()
    for _, row in best.iterrows():
        scores = scores_of(database, RUN, "experts")
        same = (
            scores[["layer", "candidate", "neuron"]] == row[["layer", "expert", "neuron"]].tolist()
        ).all(axis=1)
        same &= (scores["value"] == row["value"]) & (scores["k"] == 1)
        same &= (scores["permutation"] == 0) & (scores["protocol"] == "documents")
        assert scores[same]["f1"].tolist() == [row["f1"]]


def test_labels_are_worth_what_their_verdicts_say(database: Database) -> None:
    worth = table(database, "labels/worth.sql", run=RUN).set_index("kind")
    for kind, rows in verdicts().groupby("kind"):
        row = worth.loc[kind]
        found: dict[str, list[float]] = {"own": [], "other": [], "yes": [], "balanced": []}
        for _, own in rows.groupby("expert"):
            truth = own["is_positive"]
            found["own"].append(f1_score(truth, own["says_yes"]))
            found["other"].append(f1_score(truth, own["other_says_yes"]))
            found["yes"].append(f1_score(truth, np.ones(len(own), bool)))
            found["balanced"].append(balanced_accuracy_score(truth, own["says_yes"]))
        leads = np.subtract(found["own"], found["other"])
        assert row["n_experts"] == 2 and row["n_verdicts"] == 48
        assert row["f1"] == pytest.approx(np.mean(found["own"]))
        assert row["other_label"] == pytest.approx(np.mean(found["other"]))
        assert row["always_yes"] == pytest.approx(np.mean(found["yes"]))
        assert row["accuracy"] == pytest.approx(np.mean(found["balanced"]))
        assert row["lead"] == pytest.approx(leads.mean())
        error = np.std(leads, ddof=1) / np.sqrt(2)
        assert row["lead_high"] - row["lead"] == pytest.approx((1.96 + 2.37) * error)
        assert row["share_ahead"] == pytest.approx((leads > 0).mean())
        assert row["percent_yes"] == pytest.approx(100 * rows["says_yes"].mean(), abs=0.5)
        same = rows["says_yes"] == rows["other_says_yes"]
        assert row["percent_same"] == pytest.approx(100 * same.mean(), abs=0.5)
    labels = table(database, "labels/labels.sql", run=RUN)
    assert labels["label"].tolist() == ["label 0", "label 2"]
    assert labels["fuzzing_f1"].mean() == pytest.approx(worth.loc["fuzzing", "f1"])
    commonest = table(database, "labels/commonest.sql", run=RUN)
    assert commonest.to_numpy().tolist() == [[1, "label 0", 1, 2]]


def test_effects_are_means_of_groups_of_tokens(database: Database) -> None:
    found = table(database, "labels/effects.sql", run=RUN)
    given = effects()
    assert found["n_tokens"].tolist() == [8, 8, 8, 8, 8]
    for _, row in found.iterrows():
        if row["role"] == "control-own":
            rows = given[given["role"] == "control-own"]
        else:
            rows = given[
                (given["routed"] == row["chose_it"]) & (given["fits"] == row["label_fits"])
            ]
        assert row["n_documents"] == rows["cluster"].nunique()
        assert row["next_change"] == pytest.approx(rows["next_change"].mean())
        assert row["next_median"] == pytest.approx(rows["next_change"].median())


@pytest.mark.parametrize("name", ["experts", "labels"])
def test_every_cell_that_a_page_names_is_there(
    name: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page, by the study's own exports and figures, over the store."""
    monkeypatch.setenv("MOEDB_STORE", str(store))
    study = read_study(RESULTS / f"{name}.yaml")
    # the probes of this store have 3 neurons at most, and are of one concept's label
    small = {"32": "3", "upos": "sign", "10": "1"}
    values = {**study.chosen(dict.fromkeys(study.settings, "qwen-moe-mini")), **RUNS, "run": RUN}
    values |= {"output": str(tmp_path / name), "here": str(RESULTS)}
    (tmp_path / name).mkdir()
    for step in study.steps:
        if step.words[0] in ("card", "export", "plot"):
            words = filled(step.words, values)
            assert run_cli([small.get(word, word) for word in words]) == 0, step.name
    prose = (RESULTS / f"{name}.in.md").read_text(encoding="utf-8")
    # and one layer, so that no row is of all of them
    prose = re.sub(r"\b32(?=[],])", "3", prose).replace("[,", "[3,")
    (tmp_path / "page.in.md").write_text(prose, encoding="utf-8")
    page = tmp_path / "page.md"
    write_page(tmp_path / "page.in.md", tmp_path / name, page)
    text = page.read_text(encoding="utf-8")
    assert "@" not in text
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert images and all((tmp_path / image).stat().st_size > 1000 for image in images)


@pytest.mark.parametrize("name", ["experts", "labels"])
def test_every_figure_of_the_pages_is_there(name: str) -> None:
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\(([^)#:]+)\)", text)
    assert shown and all((RESULTS / target).exists() for target in shown)
    assert not re.search(r"^@|@=", text, flags=re.MULTILINE)
