"""The page about what experts do is made of a store's probes, by a script that shares no code."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

import moedb
from moedb.queries.database import Database
from moedb.schemas.run_names import RunName
from moedb.store.writing.naming import name_run
from tests.experts.probing.planted import DENSE_RUN, RUN, write

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
SAMPLE = ["key", "value", "protocol", "permutation", "k"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    store = tmp_path_factory.mktemp("page") / "store"
    write(store)
    write(store, dense=True)
    name_run(store, RUN, RunName("mini"))
    name_run(store, DENSE_RUN, RunName("twin-active"))
    settings = {"k": [1, 3], "min_tokens": 30, "resamples": 20}
    groups = {"groups": 4, "width": 3}
    moedb.probe("mini", "sign", store, name="experts", **settings)
    moedb.probe("twin-active", "sign", store, name="whole", **settings)
    moedb.probe("twin-active", "sign", store, name="groups", **groups, **settings)
    moedb.probe(
        "twin-active", "sign", store, name="matched", tokens_of="mini", **groups, **settings
    )
    with moedb.open(store) as opened:
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


def test_the_page_has_what_the_store_has(
    page: ModuleType, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the probes of this store have 3 neurons at most
    prose = (RESULTS / "experts.in.md").read_text(encoding="utf-8").replace("-32", "-3")
    (tmp_path / "experts.in.md").write_text(prose, encoding="utf-8")
    monkeypatch.setattr(importlib.import_module("page"), "HERE", tmp_path)
    page.make(database, ())
    text = (tmp_path / "experts.md").read_text(encoding="utf-8")
    assert not re.search(r"^@|@=", text, flags=re.MULTILINE)
    assert "## Labels" not in text and "## Ablation" not in text
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (tmp_path / image).stat().st_size > 1000


def test_every_figure_of_the_page_is_there() -> None:
    text = (RESULTS / "experts.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert shown and all((RESULTS / name).exists() for name in shown)
    assert not re.search(r"^@|@=", text, flags=re.MULTILINE)
