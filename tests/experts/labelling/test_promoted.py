"""What a reader is told of the tokens that an expert's output promotes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import moedb
from moedb.errors import UsageError
from moedb.experts.labelling.planning import cost_of
from moedb.experts.labelling.prompts import explanation, with_promoted
from moedb.experts.labelling.settings import LabelSettings
from tests.support.models.reader_server import ReaderServer, reader_server
from tests.support.shared import made_once
from tests.support.stores.made.routed_words import RUN_ID, promoted_by, write_routed_words

SMALL: dict[str, Any] = {"window": 5, "contexts": 8, "scored": 6, "batch": 7, "samples": 20}
TOLD = "makes the model more likely to go on with these tokens"


@pytest.fixture(scope="session")
def routed_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(
        tmp_path_factory,
        "routed-outputs",
        lambda at: write_routed_words(at / "store", with_outputs=True),
    )


@pytest.fixture
def kept(routed_outputs: Path, tmp_path: Path) -> Path:
    shutil.copytree(routed_outputs / "store", tmp_path / "kept")
    return tmp_path / "kept"


def label(store: Path, reader: ReaderServer, **settings: Any) -> pd.DataFrame:
    moedb.label_experts(RUN_ID, store, endpoint=reader.url, model="m", **{**SMALL, **settings})
    with moedb.open(store) as db:
        return db.sql("select expert, purpose, prompt from label_requests order by all").df()


def asked(requests: pd.DataFrame, purpose: str) -> dict[int, str]:
    own = requests[requests["purpose"] == purpose]
    return {row.expert: json.loads(row.prompt)[1]["content"] for row in own[::-1].itertuples()}


def test_an_explanation_is_told_them_and_a_judgement_is_not(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with reader_server() as reader:
        requests = label(kept, reader, promoted=2, experts=[0, 3, 9, 10], baseline=False)
    told = asked(requests, "explanation")
    assert sorted(told) == [0, 3, 9, 10]
    for expert, text in told.items():
        line = next(line for line in text.splitlines() if TOLD in line)
        assert json.loads(line[line.index("[") :]) == promoted_by(expert)
    assert not requests[requests["purpose"] != "explanation"]["prompt"].str.contains(TOLD).any()
    assert "without tokens" not in caplog.text


def test_a_run_without_outputs_is_labelled_without_them(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with reader_server() as reader:
        requests = label(store, reader, experts=[1, 2])
    assert not requests["prompt"].str.contains(TOLD).any()
    said = [each.getMessage() for each in caplog.records if "without tokens" in each.getMessage()]
    assert len(said) == 1 and "keeps no unembedding" in said[0]


def test_none_are_shown_where_none_are_asked_for(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with reader_server() as reader:
        requests = label(kept, reader, experts=[1, 2], promoted=0)
        assert not requests["prompt"].str.contains(TOLD).any()
        assert "without tokens" not in caplog.text
        # labels of one name are made in one way
        with pytest.raises(UsageError, match="labels"):
            label(kept, reader, experts=[4], promoted=3)
        label(kept, reader, experts=[4], promoted=0)


def test_what_is_not_told_changes_no_question() -> None:
    plain = explanation(["a text"])
    assert with_promoted(plain, ()) == plain
    told = with_promoted(plain, [' "quoted"', "é"])
    assert told[0] == plain[0] and told[1]["content"].endswith(plain[1]["content"])
    assert r'[" \"quoted\"", "é"]' in told[1]["content"]


def test_it_is_part_of_what_labels_are_made_with_and_of_their_cost() -> None:
    some, none = (LabelSettings("r", "http://h", "m", promoted=n) for n in (7, 0))
    assert json.loads(some.addition.config)["promoted"] == 7
    assert "promoted" not in json.loads(none.addition.config)
    assert cost_of(some)[0] == cost_of(none)[0] and cost_of(some)[1] > cost_of(none)[1]
    with pytest.raises(UsageError, match="promoted: expected 0 or more, got -1"):
        LabelSettings("r", "http://h", "m", promoted=-1)
