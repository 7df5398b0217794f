"""Checks of labels: which tokens and controls, what is stored of them, stopping and going on.

What an ablation changes is held against the plain model, and what is drawn against the tables of
the run, read by DuckDB alone.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import ModelNotFoundError, MoedbError, UsageError
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.capture.interventions.ablation.test_ablation import Plain
from tests.experts.checking.conftest import LABELS
from tests.support.models.reader_server import reader_server

pytestmark = pytest.mark.model

FOLLOW = 3
KEY = ["effect_set", "layer", "expert", "role", "ablated", "token_idx"]


def check(store: Path, model: Path, **settings: Any) -> pd.DataFrame:
    given = {"follow": FOLLOW, "layers": [1], "experts": [0, 1, 2], **settings}
    return moedb.check_labels("texts", "labels", store, model=str(model), **given).df()


def rows(store: Path) -> pd.DataFrame:
    with moedb.open(store) as database:
        found: pd.DataFrame = database.sql("select * exclude run_id from label_effects").df()
    return found.sort_values(KEY, ignore_index=True)


class Tables:
    """The run's tables, from their files."""

    def __init__(self, store: Path) -> None:
        (folder,) = (store / "runs").iterdir()
        self._folder = folder / "tables"

    def read(self, table: str, columns: str = "*", where: str = "true") -> pd.DataFrame:
        files = self._folder / table / "**" / "*.parquet"
        return duckdb.sql(f"select {columns} from '{files}' where {where}").df()


@pytest.fixture(scope="session")
def checked(labelled: Path, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the effects of three experts."""
    place = tmp_path_factory.mktemp("checked") / "store"
    shutil.copytree(labelled / "store", place)
    check(place, random_model)
    return place


def test_an_expert_s_rows_are_its_verdicts_and_what_the_plain_model_gives(
    checked: Path, random_model: Path
) -> None:
    tables, plain = Tables(checked), Plain(str(random_model))
    found = rows(checked)
    verdicts = tables.read("label_verdicts", where="kind = 'fuzzing' and layer = 1")
    verdicts = verdicts.sort_values("number").drop_duplicates(["expert", "token_idx"])
    tokens = tables.read("tokens").sort_values("token_idx")
    ids = {example: own["token_id"].tolist() for example, own in tokens.groupby("example_id")}
    place = dict(zip(tokens["token_idx"], tokens["position"], strict=True))
    assert sorted(found["expert"].unique()) == [0, 1, 2]
    untouched = {example: plain.logprobs(own) for example, own in ids.items()}
    for expert, own in found[found["role"] == "own"].groupby("expert"):
        said = verdicts[verdicts["expert"] == expert].set_index("token_idx")
        assert set(own["token_idx"]) == set(said.index)
        assert (own["ablated"] == expert).all() and (own["chosen"] == own["routed"]).all()
        without: dict[int, Any] = {}
        for row in own.itertuples():
            verdict = said.loc[row.token_idx]
            assert (row.routed, row.fits) == (verdict["is_positive"], verdict["says_yes"])
            assert row.example_id == verdict["example_id"]
            example, at = row.example_id, place[row.token_idx]
            left = len(ids[example]) - 1 - at
            assert row.n_following == min(FOLLOW, left)
            if not left:
                assert np.isnan(row.next_change) and np.isnan(row.following_change)
                continue
            if example not in without:
                without[example] = plain.logprobs(ids[example], (1, expert))
            change = without[example] - untouched[example]
            assert row.next_change == pytest.approx(change[at], abs=2e-4)
            assert row.following_change == pytest.approx(change[at : at + FOLLOW].mean(), abs=2e-4)
            assert np.isfinite(row.attribution) == bool(row.routed)
            if row.routed:  # two layers, three experts each
                assert 1 <= row.attribution_rank <= row.n_attributed == 6
    verify_run(read_run(checked, next((checked / "runs").iterdir()).name))


def test_controls_are_chosen_about_as_often_and_seen_on_both_kinds_of_tokens(
    checked: Path,
) -> None:
    tables, found = Tables(checked), rows(checked)
    routing = tables.read("routing", where="layer = 1")
    counts = routing["expert"].value_counts()
    chose = set(zip(routing["token_idx"], routing["expert"], strict=True))
    for expert, own in found.groupby("expert"):
        controls = sorted(own[own["role"] == "control"]["ablated"].unique())
        distances = (counts - counts[expert]).abs().drop(expert).sort_values()
        assert len(controls) == 2
        assert sorted(distances[controls]) == sorted(distances)[:2]
        same = set(own[own["role"] == "own"]["token_idx"])
        n_routed = int(own[own["role"] == "own"]["routed"].sum())
        for control in controls:
            beside = own[(own["role"] == "control") & (own["ablated"] == control)]
            assert set(beside["token_idx"]) == same
            theirs = own[(own["role"] == "control-own") & (own["ablated"] == control)]
            assert len(theirs) == n_routed and (theirs["chosen"] == 1).all()
            assert theirs["fits"].isna().all()
        for row in own.itertuples():
            assert row.chosen == ((row.token_idx, row.ablated) in chose)
            assert row.routed == ((row.token_idx, row.expert) in chose)
    merged = found.merge(
        found[found["role"] == "own"], on=["expert", "token_idx"], suffixes=("", "_own")
    )
    assert (merged["fits"] == merged["fits_own"])[merged["role"] == "control"].all()


def test_where_the_expert_is_not_chosen_before_the_change_is_exactly_zero(checked: Path) -> None:
    tables, found = Tables(checked), rows(checked)
    routing = tables.read("routing", where="layer = 1")
    tokens = tables.read("tokens", "token_idx, example_id")
    routing = routing.merge(tokens, on="token_idx")
    first = routing.groupby(["expert", "example_id"])["token_idx"].min().to_dict()
    n_zero = 0
    for row in found[found["n_following"] > 0].itertuples():
        begins = first.get((row.ablated, row.example_id), np.inf)
        if row.token_idx < begins:
            assert row.next_change == 0
            n_zero += 1
        if row.token_idx + row.n_following <= begins:
            assert row.following_change == 0
    assert n_zero


def test_what_a_dry_run_says_is_what_is_done(
    checked: Path, store: Path, random_model: Path
) -> None:
    before = sorted(str(path) for path in store.rglob("*"))
    (said,) = check(store, random_model, dry_run=True).to_dict("records")
    assert sorted(str(path) for path in store.rglob("*")) == before
    found = rows(checked)
    assert (said["n_experts"], said["n_checked"]) == (3, 0)
    assert said["n_rows"] == len(found)
    changed = found[found["next_change"].fillna(0) != 0]
    pairs = changed[["expert", "ablated", "example_id"]].drop_duplicates()
    assert (
        len(pairs)
        <= said["n_ablated"]
        <= len(found[["expert", "ablated", "example_id"]].drop_duplicates())
    )
    (left,) = check(checked, random_model, dry_run=True).to_dict("records")
    assert (left["n_experts"], left["n_checked"], left["n_tokens"]) == (0, 3, 0)


def test_experts_are_added_one_by_one(checked: Path, store: Path, random_model: Path) -> None:
    check(store, random_model, limit=1)
    assert rows(store)["expert"].unique().tolist() == [0]
    assert len(check(store, random_model)) == 3
    pd.testing.assert_frame_equal(rows(store), rows(checked), atol=1e-4)
    again = rows(store)
    check(store, random_model)
    pd.testing.assert_frame_equal(rows(store), again, check_exact=True)


_KILLED = """
import os, signal, sys
from moedb.experts.checking import running
import moedb

append, calls = running.append, []

def killing(*given):
    calls.append(given)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return append(*given)

running.append = killing
moedb.check_labels(
    "texts", "labels", sys.argv[1], model=sys.argv[2], follow=3, layers=[1], experts=[0, 1, 2]
)
"""


def test_a_check_that_was_killed_goes_on(checked: Path, store: Path, random_model: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(store), str(random_model)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL
    assert rows(store)["expert"].unique().tolist() == [0]
    check(store, random_model)
    pd.testing.assert_frame_equal(rows(store), rows(checked), atol=1e-4)


def test_what_cannot_be_checked_is_said(store: Path, checked: Path, random_model: Path) -> None:
    for settings, message in (
        ({"labels": "label"}, "no labels of experts named 'label'; did you mean labels"),
        ({"layers": [0]}, "no layer 0 has such a label; layers that have: 1, 2"),
        ({"experts": [77]}, "no expert 77 has such a label"),
        ({"kind": "guess"}, "no verdicts of kind 'guess'"),
        ({"follow": 0}, "follow is 0; it is 1 or more"),
        ({"controls": -1}, "controls is -1; it is 0 or more"),
        ({"name": "no name"}, "no name for an addition"),
        ({"name": "labels"}, "an addition named 'labels' that is of expert-labels"),
        ({"labels": ""}, "which labels are to be checked"),
    ):
        labels = settings.pop("labels", "labels")
        with pytest.raises(UsageError, match=message):
            moedb.check_labels("texts", labels, store, model=str(random_model), **settings)
    with pytest.raises(UsageError, match="has 'labels-effects' with other settings: seed 0, not 1"):
        check(checked, random_model, seed=1)
    with pytest.raises(ModelNotFoundError, match="a run does not keep where it was"):
        moedb.check_labels("texts", "labels", store)
    with pytest.raises(MoedbError, match="no run"):
        moedb.check_labels("nothing", "labels", store)


def test_other_settings_go_under_another_name_and_are_taken_out_by_it(
    checked: Path, tmp_path: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(checked, store)
    shown = ["--store", str(store), "check-labels", "texts"]
    given = ["--labels", "labels", "--name", "b", "--controls", "0", "--layers", "2", "--n", "1"]
    assert run_cli([*shown, *given, "--model", str(random_model), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and out.splitlines()[1].startswith("b,labels,fuzzing,2,0,")
    assert "1 experts of run" in err and "--remove b" in err
    found = rows(store)
    assert sorted(found["effect_set"].unique()) == ["b", "labels-effects"]
    assert found[found["effect_set"] == "b"]["role"].unique().tolist() == ["own"]
    assert run_cli([*shown, "--remove", "c"]) != 0
    assert "no addition named 'c'" in capsys.readouterr().err
    assert run_cli([*shown, "--remove", "labels"]) != 0
    assert "is of expert-labels" in capsys.readouterr().err
    assert run_cli([*shown, "--remove", "b"]) == 0
    assert "removed" in capsys.readouterr().err
    pd.testing.assert_frame_equal(rows(store), rows(checked))


def test_labels_made_anew_under_the_same_name_are_other_labels(
    checked: Path, tmp_path: Path, random_model: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(checked, store)
    moedb.remove_addition("texts", "labels", store)
    with reader_server(manner="any") as reader:
        moedb.label_experts(
            "texts", store, endpoint=reader.url, model="m", layers=[1], experts=[0], **LABELS
        )
    with pytest.raises(UsageError, match="with other settings: labelled_at"):
        check(store, random_model, experts=[0])
