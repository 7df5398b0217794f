"""Which run answers where none is named."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import ArrayNotFoundError, ParameterError
from moedb.queries.database import Database

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of IOI prompts with arrays, and a newer one of texts without."""
    folder = tmp_path_factory.mktemp("default")
    texts = folder / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"She saw it {n}.", "kind": "a"}) + "\n" for n in range(3))
    )
    for command in (
        ["qwen-ioi", "--n", "4", "--name", "prompts", "--arrays", "expert_outputs@2"],
        ["text", "--dataset", str(texts), "--label", "kind", "--arrays", "none", "--note", "dull"],
    ):
        assert run_cli(["capture", *command, "--store", str(folder / "store")]) == 0
    return folder / "store"


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


def job_of(database: Database, name: str, **parameters: object) -> str:
    (run,) = database.query(name, **parameters).provenance.runs
    return run.job


def test_the_newest_run_answers_what_it_can(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    assert job_of(db, "expert-frequency") == "text"
    assert job_of(db, "routing-by-class", key="kind") == "text"
    assert not caplog.records


def test_what_it_has_not_is_asked_of_the_one_before(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert job_of(db, "ioi-logit-diff") == "qwen-ioi"  # no predictions
    assert job_of(db, "routing-by-class", key="role") == "qwen-ioi"  # no such label
    assert job_of(db, "expert-frequency", split="corrupted") == "qwen-ioi"  # no such split
    assert job_of(db, "output-overlap") == "qwen-ioi"  # no such array
    assert db.array(None, "expert_outputs", 2).shape[1:] == (4, 128)
    assert len(db.expert_outputs(layer=2, where="position = 0").values) == 8
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 6
    assert all("is of run prompts (qwen-ioi-" in line for line in said)


def test_a_name_is_a_label_of_the_run(db: Database) -> None:
    shares = db.query("routing-by-class", run="prompts", key="name", split="all").df()
    assert set(shares["value"]) == {"prompts"}
    ((n_decisions,),) = db.sql("select count(*) from routing", run="prompts").fetchall()
    assert shares["n_decisions"].sum() == n_decisions


def test_macros_ask_the_same_run(db: Database) -> None:
    by_name = db.query("routing-by-class", key="role").fetchall()
    assert sorted(db.sql("from routing_by_class(key := 'role')").fetchall()) == sorted(by_name)
    newest = db.query("routing-by-class", key="kind").fetchall()
    assert sorted(db.sql("from routing_by_class('kind')").fetchall()) == sorted(newest)
    two = "from routing_by_class(key := 'role') union all from routing_by_class(key := 'kind')"
    with pytest.raises(ParameterError, match="called twice without a run"):
        db.sql(two)
    named = two.replace("'role'", "'role', run := 'prompts'")
    assert len(db.sql(named).fetchall()) == len(by_name) + len(newest)


def test_what_no_run_has_is_said_of_the_newest(db: Database) -> None:
    with pytest.raises(ParameterError, match="no label key 'rolle' in run text-"):
        db.query("routing-by-class", key="rolle")
    with pytest.raises(ArrayNotFoundError, match=r"run text-.* keeps no router_input"):
        db.query("kmeans-baseline", key="kind")
    with pytest.raises(ArrayNotFoundError, match=r"text-.* has no router_input of layer 2"):
        db.array(None, "router_input", 2)


def test_a_run_that_is_named_answers_alone(db: Database) -> None:
    with pytest.raises(ParameterError, match="no label key 'role' in run text-"):
        db.query("routing-by-class", run="text", key="role")


def test_a_run_is_not_compared_with_itself_for_want_of_another(db: Database) -> None:
    with pytest.raises(ParameterError, match="no token of run text-"):
        db.query("saturation", run_b="prompts")


def test_names_and_notes_are_shown(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    columns = "run_id,name,note"
    capfd.readouterr()
    assert run_cli(["runs", "--store", str(store), "--format", "csv"]) == 0
    head, *rows = capfd.readouterr().out.splitlines()
    places = [head.split(",").index(column) for column in columns.split(",")]
    shown = [[row.split(",")[place] for place in places] for row in rows]
    assert [row[1:] for row in shown] == [["prompts", ""], ["", "dull"]]
    assert run_cli(["name", "text", "prose", "--store", str(store)]) == 0
    assert run_cli(["name", "prose", "--store", str(store)]) == 2
    assert run_cli(["name", "prose", "prompts", "--store", str(store)]) == 2
    err = capfd.readouterr().err
    assert "give a name, or a note" in err and "'prompts' is taken" in err
    assert run_cli(["show", "prose", "--store", str(store)]) == 0
    assert "dull" in capfd.readouterr().out


def test_a_capture_that_is_complete_can_be_named_by_it(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["capture", "qwen-ioi", "--n", "4", "--arrays", "expert_outputs@2"]
    assert run_cli([*command, "--name", "again", "--store", str(store)]) == 0
    with moedb.open(store) as database:
        assert database.snapshot.run("again").row["job"] == "qwen-ioi"
    assert run_cli([*command, "--name", "prompts", "--store", str(store)]) == 0
    assert run_cli([*command, "--name", "no name", "--store", str(store)]) == 2
    assert "cannot be called 'no name'" in capfd.readouterr().err
