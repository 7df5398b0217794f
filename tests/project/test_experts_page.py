"""The page about what experts do is made of a store's probes, by a script that shares no code."""

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import t as student
from sklearn.metrics import balanced_accuracy_score, f1_score

import moedb
from moedb.queries.database import Database
from moedb.schemas.additions import Addition
from moedb.schemas.run_names import RunName
from moedb.schemas.tables import LABEL_EFFECTS
from moedb.store.writing.complete.additions import add
from moedb.store.writing.naming import name_run
from moedb.store.writing.tables.parquet import arrow_schema
from tests.experts.probing.planted import DENSE_RUN, RUN, write

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
SAMPLE = ["key", "value", "protocol", "permutation", "k"]
SETTINGS: dict[str, Any] = {"k": [1, 3], "min_tokens": 30, "resamples": 20}


def add_twin(store: Path, run: str, name: str, n_groups: int) -> None:
    write(store, dense=True, run=run)
    name_run(store, run, RunName(name))
    groups = {"groups": n_groups, "width": 3, **SETTINGS}
    moedb.probe(name, "sign", store, name="whole", **SETTINGS)
    moedb.probe(name, "sign", store, name="groups", **groups)
    moedb.probe(name, "sign", store, name="matched", tokens_of="mini", **groups)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page") / "store"
    write(made)
    name_run(made, RUN, RunName("mini"))
    moedb.probe("mini", "sign", made, name="experts", **SETTINGS)
    add_twin(made, DENSE_RUN, "twin-active", 4)
    return made


@pytest.fixture(scope="module")
def database(store: Path) -> Iterator[Database]:
    with moedb.open(store) as opened:
        yield opened


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
def whole_database(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The store with the other twin, labels and their effects."""
    folder = tmp_path_factory.mktemp("whole")
    made = shutil.copytree(store, folder / "store")
    add_twin(made, "text-aaaaaaaaaa", "twin-total", 3)
    lines = [{"layer": 3, "expert": expert, "label": f"label {expert}"} for expert in (0, 2)]
    lines += verdicts().to_dict("records")
    text = "\n".join(map(json.dumps, lines))
    (folder / "theirs.jsonl").write_text(text, encoding="utf-8")
    moedb.import_labels("mini", folder / "theirs.jsonl", made, name="theirs")
    fields = [field for field in arrow_schema(LABEL_EFFECTS) if field.name != "run_id"]
    rows = effects().astype(object).replace({np.nan: None}).to_dict("records")
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    add(made, RUN, Addition("e", "label-effects"), {"label_effects": [table]})
    with moedb.open(made) as opened:
        yield opened


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(RESULTS)
    script = importlib.import_module("experts")
    monkeypatch.setattr(script, "SIZES", (1, 3))
    monkeypatch.setattr(script, "KEY", "sign")
    monkeypatch.setattr(script, "LEAST", 1)
    yield script


def test_leads_are_of_what_the_probes_say(page: ModuleType, database: Database) -> None:
    leads = page.questions(database)["leads"][0].df()
    scores = database.sql("from probe_scores").df()

    def counted(probe: str, row: "pd.Series[float]", value: str, shuffled: bool) -> float:
        rows = scores[(scores["probe"] == probe) & (scores["value"] == value)]
        rows = rows[(rows["protocol"] == row["protocol"]) & (rows["k"] == row["k"])]
        rows = rows[(rows["permutation"] > 0) == shuffled]
        if row["counted"] == "best on test":
            return float(rows["f1"].max())
        if row["counted"] == "chosen":
            order = ["selection_f1", "n_test", "layer", "candidate"]
            return float(
                rows.sort_values(order, ascending=[False, False, True, True])["f1"].iloc[0]
            )
        return float(np.average(rows["f1"], weights=rows["n_test"]))

    assert len(leads) == 14 and set(leads["twin"]) == {"active"}
    for _, row in leads.iterrows():
        found = {
            (probe, value, shuffled): counted(probe, row, value, shuffled)
            for probe in ("experts", row["control"])
            for value in ("planted", "other")
            for shuffled in (False, True)
        }
        lead = {
            shuffled: [
                found["experts", value, shuffled] - found[row["control"], value, shuffled]
                for value in ("planted", "other")
            ]
            for shuffled in (False, True)
        }
        assert row["n_concepts"] == 2
        assert row["lead"] == pytest.approx(np.mean(lead[False]))
        assert row["lead_shuffled"] == pytest.approx(np.mean(lead[True]))
        error = np.std(lead[False], ddof=1) / np.sqrt(2)
        assert row["high"] - row["lead"] == pytest.approx((1.96 + 2.37) * error)
    for df in (13, 28):
        assert 1.96 + 2.37 / df == pytest.approx(student.ppf(0.975, df), abs=0.02)


def test_pairs_are_of_an_expert_and_the_group_on_its_tokens(
    page: ModuleType, database: Database
) -> None:
    pairs = page.questions(database)["pairs"][0].df().set_index(["k", "labels"])
    scores = database.sql("from probe_scores where protocol = 'documents'").df()
    at = ["layer", "candidate", *SAMPLE]
    experts, groups = (
        scores[scores["probe"] == probe].set_index(at)["f1"] for probe in ("experts", "matched")
    )
    both = pd.DataFrame({"experts": experts, "groups": groups}).reset_index()
    for k, labels in pairs.index:
        rows = both[(both["k"] == k) & ((both["permutation"] > 0) == (labels == "shuffled"))]
        row = pairs.loc[(k, labels)]
        assert row["n_pairs"] == len(rows) == 16
        assert row["lead"] == pytest.approx((rows["experts"] - rows["groups"]).mean())
        ahead = (rows["experts"] > rows["groups"]) + 0.5 * (rows["experts"] == rows["groups"])
        assert row["share_ahead"] == pytest.approx(ahead.mean())


def test_labels_are_worth_what_their_verdicts_say(
    page: ModuleType, whole_database: Database
) -> None:
    worth = page.questions(whole_database)["label-worth"][0].df().set_index("kind")
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
        assert row["high"] - row["lead"] == pytest.approx((1.96 + 2.37) * error)
        assert row["share_ahead"] == pytest.approx((leads > 0).mean())
        assert row["says_yes"] == pytest.approx(rows["says_yes"].mean())
        same = rows["says_yes"] == rows["other_says_yes"]
        assert row["same_as_other"] == pytest.approx(same.mean())


def test_effects_are_means_of_groups_of_tokens(page: ModuleType, whole_database: Database) -> None:
    found = page.questions(whole_database)["effects"][0].df()
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


def test_probes_on_an_experts_tokens_have_its_tokens(
    page: ModuleType, whole_database: Database
) -> None:
    samples = page.questions(whole_database)["samples"][0].df().set_index("twin")
    scores = whole_database.sql("from probe_scores").df()
    at = ["layer", "candidate", *SAMPLE]
    counts = ["n_train", "n_selection", "n_test", "n_yes"]
    for twin, run in (("active", DENSE_RUN), ("total", "text-aaaaaaaaaa")):
        expert, group = (
            scores[(scores["probe"] == probe) & (scores["run_id"] == of)].set_index(at)[counts]
            for probe, of in (("experts", RUN), ("matched", run))
        )
        both = expert.join(group.add_suffix("_group"), how="inner")
        same = (both[counts].to_numpy() == both[[f"{name}_group" for name in counts]]).all(axis=1)
        assert samples.loc[twin, "n_probes"] == len(both) > 0
        assert samples.loc[twin, "n_same"] == same.sum()


def made(
    page: ModuleType, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The page of a store, made in a folder, with all that it shows."""
    # the probes of these stores have 3 neurons at most
    prose = (RESULTS / "experts.in.md").read_text(encoding="utf-8").replace("-32", "-3")
    (folder / "experts.in.md").write_text(prose, encoding="utf-8")
    monkeypatch.setattr(importlib.import_module("page"), "HERE", folder)
    page.make(database, ())
    text = (folder / "experts.md").read_text(encoding="utf-8")
    assert not re.search(r"^@|@=", text, flags=re.MULTILINE)
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (folder / image).stat().st_size > 1000
    return text


def test_the_page_has_what_the_store_has(
    page: ModuleType, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = made(page, database, tmp_path, monkeypatch)
    assert "## Labels" not in text and "## Ablation" not in text
    assert "| total " not in text


def test_the_page_of_a_whole_store_has_both_twins_and_labels(
    page: ModuleType, whole_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = made(page, whole_database, tmp_path, monkeypatch)
    assert "## Labels" in text and "| label 2 " in text
    assert "## Ablation" in text and "| fits_less_other " in text
    assert "| total " in text


def test_every_figure_of_the_page_is_there() -> None:
    text = (RESULTS / "experts.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert shown and all((RESULTS / name).exists() for name in shown)
    assert not re.search(r"^@|@=", text, flags=re.MULTILINE)
