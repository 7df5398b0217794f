"""A question over several runs: the rows of each, one after the other."""

from pathlib import Path

import pytest

import moedb
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.database import Database
from moedb.schemas.run_names import RunName
from moedb.store.writing.naming import name_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    """Three runs: two of the embedded model, one of another with fewer experts, named c, b, a."""
    folder = tmp_path_factory.mktemp("many") / "store"
    models = ["qwen-moe-mini", "qwen-moe-mini", str(random_model)]
    for seed, (model, name) in enumerate(zip(models, "cba", strict=True)):
        planned = plan_qwen_ioi(CaptureOptions(model=model, arrays=()), n=4, seed=seed)
        name_run(folder, capture(planned, folder).run_id, RunName(f"run-{name}", f"{10 - seed}"))
    return folder


@pytest.fixture
def database(store: Path) -> Database:
    return moedb.open(store)


def own_rows(database: Database, run: str) -> list[tuple[object, ...]]:
    return [(run, *row) for row in database.query("load-balance", run=run).fetchall()]


def test_a_pattern_is_every_run_called_so_the_oldest_first(database: Database) -> None:
    found = database.query("load-balance", run="run-*")
    expected = [row for name in "cba" for row in own_rows(database, f"run-{name}")]
    assert found.fetchall() == expected
    assert found.columns == ["run", *database.query("load-balance").columns]
    assert {run.name for run in found.provenance.runs} == {"run-a", "run-b", "run-c"}


@pytest.mark.parametrize("runs", ["run-a,run-c", ["run-a", "run-c"], " run-a , run-c,run-a"])
def test_a_list_is_in_its_order_and_each_run_once(database: Database, runs: object) -> None:
    found = database.query("load-balance", run=runs).fetchall()
    assert found == [*own_rows(database, "run-a"), *own_rows(database, "run-c")]


def test_a_label_of_the_runs_is_a_column_and_puts_numbers_in_order(database: Database) -> None:
    found = database.query_runs("load-balance", "run-*", "note")
    assert found.columns[:3] == ["run", "note", "layer"]
    assert found.types[1] == "BIGINT"
    places = list(dict.fromkeys(row[:2] for row in found.fetchall()))
    assert places == [("run-a", 8), ("run-b", 9), ("run-c", 10)]
    by_text = database.query_runs("load-balance", "run-*", "name").fetchall()
    assert list(dict.fromkeys(row[1] for row in by_text)) == ["run-a", "run-b", "run-c"]


def test_a_question_with_a_parameter_key_takes_it(database: Database) -> None:
    asked = {"key": "role", "value_a": "io", "value_b": "s1"}
    found = database.query_runs("overlap", "run-b,run-c", "name", **asked).fetchall()
    expected = database.query("overlap", run="run-b", **asked).fetchall()
    assert [row[2:] for row in found if row[0] == "run-b"] == expected


def test_analyses_in_python_are_asked_of_each_run(database: Database) -> None:
    found = database.query("label-information", run="run-b,run-c", key="template").fetchall()
    expected = database.query("label-information", run="run-c", key="template").fetchall()
    assert [row[1:] for row in found if row[0] == "run-c"] == expected


@pytest.mark.parametrize(
    ("question", "runs", "label", "error", "says"),
    [
        ("load-balance", "nothing-*", None, RunNotFoundError, "called like 'nothing-\\*'"),
        ("load-balance", "run-a,run-x", None, RunNotFoundError, "no run named 'run-x'"),
        ("load-balance", " , ", None, UsageError, "no run is named"),
        ("load-balance", "run-*", "step", UsageError, "has no label 'step'.*valid: name, note"),
        ("class-correlation", "run-*", None, UsageError, "reads all trials together"),
    ],
)
def test_what_is_not_there_is_said(
    database: Database, question: str, runs: str, label: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        database.query_runs(question, runs, label)
