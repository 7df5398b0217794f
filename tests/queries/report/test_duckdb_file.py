"""Files of DuckDB: opened without moedb they hold, and answer, what the store does."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.questions.catalog import catalog
from moedb.queries.report.duckdb_file import write_duckdb
from moedb.queries.report.pinned import check_file
from moedb.schemas.additions import Addition
from moedb.schemas.run_names import RunName
from moedb.schemas.tables import TABLES
from moedb.schemas.tables import table as table_named
from moedb.store.engine.quoting import literal
from moedb.store.engine.views import derived_view_names
from moedb.store.writing.complete.additions import add
from moedb.store.writing.naming import name_run
from tests.support.servers.spark import assert_same_rows
from tests.support.stores.samples import RUN_ID, unfinish, write_sample

if TYPE_CHECKING:
    from tests.support.models.cifar_store import CifarStore

HOSTILE = 'it\'s; drop table runs -- "é" 猫 [a-z]*'

Given = dict[str, Any]

OF_RUNS: dict[str, list[Given]] = {
    "active-experts": [{}, {"scope": "example", "split": "all"}],
    "co-activation": [{}, {"layer": 1, "split": "all"}],
    "co-activation-adjacent": [{"layer": 4}],
    "concentration": [{}, {"split": "corrupted"}],
    "cross-layer": [{"layer": 3}, {"layer": 4, "pairs": "rank-aligned"}],
    "expert-frequency": [{}, {"split": "all"}],
    "expert-similarity": [{}],
    "expert-specialization": [{"key": "role"}],
    "ioi-logit-diff": [{}, {"key": "order"}],
    "labelled-experts": [{"against": "document"}],
    "load-balance": [{}],
    "overlap": [{"key": "role", "value_a": "io", "value_b": "s2"}, {"run_b": "other"}],
    "pair-specialization": [{"key": "role"}],
    "polysemanticity": [{"min_accuracy": 0.1}],
    "probe-best": [{}],
    "probe-curves": [{}],
    "router-confidence": [{}, {"key": "role"}],
    "routing-by-class": [{"key": "role"}, {"key": "template", "layer": 2}],
    "routing-by-example": [{}],
    "saturation": [{"run_b": "other"}],
    "top-tokens": [{"layer": 3}, {"by": "lift", "min_count": 3}],
    "vocabulary-specialization": [{}, {"of": "next"}],
}
OF_TRIALS: dict[str, list[Given]] = {
    "class-consistency": [{}],
    "class-correlation": [{}],
    "class-covariance": [{}],
    "expert-accuracy": [{}],
    "load-balance-by-trial": [{}],
    "router-ablation": [{"level": "trial"}, {}],
}


def test_every_macro_is_asked() -> None:
    assert {*OF_RUNS, *OF_TRIALS} == set(catalog())


def add_rows(store: Path, run_id: str) -> None:
    """Rows in the tables that only other commands fill, drawn at random."""
    rng = np.random.default_rng(5)
    given = {
        "run_id": [run_id],
        "layer": [0, 3, 5],
        "key": ["role"],
        "against": ["all", "document"],
        "protocol": ["documents"],
        "permutation": [0],
        "kind": ["detection"],
        "n_test": [7, 20],
        "k": [1, 2],
    }
    for name in ("probe_scores", "expert_labels", "expert_label_scores"):
        rows: dict[str, list[Any]] = {}
        for column in table_named(name).columns:
            if column.name in given:
                values: list[Any] = list(rng.choice(np.array(given[column.name], object), 60))
            elif column.sql_type == "VARCHAR":
                values = list(rng.choice(np.array(["a 'b'", "$run", "猫"], object), 60))
            elif column.sql_type in ("INTEGER", "BIGINT"):
                values = [int(value) for value in rng.integers(0, 4, 60)]
            else:
                values = [float(value) for value in rng.random(60).round(1)]
            rows[column.name] = values
        drawn = pd.DataFrame({key: value for key, value in rows.items() if key != "run_id"})
        keys = [key for key in table_named(name).sort_by if key in drawn]
        made = pa.Table.from_pandas(drawn.drop_duplicates(keys), preserve_index=False)
        add(store, run_id, Addition(name, "made"), {name: [made]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, in a folder whose name is hostile; the newer has rows in every table."""
    folder = tmp_path_factory.mktemp("file") / HOSTILE
    moedb.capture_ioi(folder, n=12, seed=1, arrays="none")
    run = moedb.capture_ioi(folder, n=24, arrays="none", expert_similarity="weights")
    add_rows(folder, run)
    return folder


def newest(store: Path) -> str:
    with moedb.open(store) as db:
        found = db.snapshot.newest_complete()
    assert found is not None
    return found.run_id


def call_of(name: str, given: Given) -> str:
    written = ", ".join(f'"{key}" := {literal(value)}' for key, value in given.items())
    return f"from {name.replace('-', '_')}({written})"


def compare(store: Path, file: Path, asked: dict[str, list[Given]], run: str | None) -> None:
    """Hold what plain DuckDB gives against the store's answers."""
    with moedb.open(store) as db, duckdb.connect(str(file), read_only=True) as plain:
        other = next(iter(set(db.snapshot.runs) - {run}))
        for name, settings in asked.items():
            for setting in settings:
                given = {k: other if k == "run_b" else v for k, v in setting.items()}
                named = {**given, **({} if run is None else {"run": run})}
                expected = db.query(name, **named)
                for arguments in (given, named):
                    found = plain.sql(call_of(name, arguments))
                    assert found.columns == expected.columns, name
                    assert [str(each) for each in found.types] == expected.types, name
                    rows = expected.fetchall()
                    assert rows, name
                    assert_same_rows(found.fetchall(), rows)


@pytest.mark.model
@pytest.mark.parametrize("copied_bytes", [0, 1 << 30])
def test_macros_answer_as_named_queries_do(store: Path, tmp_path: Path, copied_bytes: int) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(store) as db:
        written = write_duckdb(db, file, copied_bytes=copied_bytes)
    assert ("routing" in written.in_place) is (copied_bytes == 0)
    compare(store, file, OF_RUNS, newest(store))


@pytest.mark.model
def test_macros_over_trials_answer_so_too(cifar_store: "CifarStore", tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(cifar_store.folder) as db:
        write_duckdb(db, file)
    compare(cifar_store.folder, file, OF_TRIALS, None)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A complete run called ``first``, another one, and one that is not complete."""
    folder = tmp_path / HOSTILE
    write_sample(folder)
    write_sample(folder, run_id="text-other", n_units=2)
    write_sample(folder, run_id="text-half", n_units=2)
    unfinish(folder, "text-half", "000001")
    name_run(folder, RUN_ID, RunName("first"))
    return folder


@pytest.fixture
def plain(sample: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with moedb.open(sample) as db:
        moedb.export_duckdb(db, tmp_path / "x.duckdb")
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        yield connection


def test_tables_and_views_hold_the_rows_of_the_store(
    sample: Path, plain: duckdb.DuckDBPyConnection
) -> None:
    with moedb.open(sample) as every, moedb.Database(every.snapshot.only("text-o", RUN_ID)) as db:
        for name in [*(table.name for table in TABLES), *derived_view_names()]:
            rows = f"select * from {name} order by all"
            found, expected = plain.sql(rows), db.sql(rows)
            assert found.columns == expected.columns
            assert [str(each) for each in found.types] == expected.types
            assert_same_rows(found.fetchall(), expected.fetchall())
    (rows,) = plain.sql("select count(*) from routing").fetchall()
    assert rows == (3 * 5 * 2 * 2 + 2 * 5 * 2 * 2,)


def test_it_says_where_it_is_from(sample: Path, plain: duckdb.DuckDBPyConnection) -> None:
    rows = plain.sql("from provenance order by run_id").df().to_dict("records")
    assert [(row["run_id"], row["status"]) for row in rows] == [
        (RUN_ID, "complete"),
        ("text-other", "complete"),
    ]
    assert (rows[0]["name"], rows[0]["store"]) == ("first", str(sample))
    with moedb.open(sample) as db:
        expected = db.snapshot.only(RUN_ID, "text-other").sha256
    told = json.loads((sample.parent / "x.duckdb.provenance.json").read_text())
    assert {row["snapshot"] for row in rows} == {expected} == {told["snapshot"]}
    assert {row["moedb_version"] for row in rows} == {moedb.__version__} == {told["moedb_version"]}
    assert [run["run_id"] for run in told["runs"]] == [RUN_ID, "text-other"]
    assert told["tables"]["routing"] == {"kind": "table", "n_rows": 100}


def test_what_stands_in_it_is_described(plain: duckdb.DuckDBPyConnection) -> None:
    ((said,),) = plain.sql(
        "select comment from duckdb_columns() where table_name = 'routing' and column_name = 'rank'"
    ).fetchall()
    assert said == next(c.doc for c in table_named("routing").columns if c.name == "rank")
    macros = plain.sql(
        "select function_name, comment from duckdb_functions() "
        "where function_type = 'table_macro' and not internal order by all"
    ).fetchall()
    assert macros == sorted((query.macro_name, query.answers) for query in catalog().values())


def test_names_of_runs_work_and_the_newest_is_the_default(
    plain: duckdb.DuckDBPyConnection,
) -> None:
    by_name = plain.sql("from router_confidence(run := 'first')").fetchall()
    assert by_name == plain.sql(f"from router_confidence(run := '{RUN_ID}')").fetchall()
    assert by_name != plain.sql("from router_confidence(run := 'text-other')").fetchall()
    assert plain.sql("from latest_run").fetchall() == [("text-other",)]


def test_large_tables_stay_in_the_store(sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(sample) as db:
        written = write_duckdb(db, file, "first", copied_bytes=4000)
        assert "routing" in written.in_place
    code = (
        "import duckdb, sys; plain = duckdb.connect(sys.argv[1], read_only=True); "
        "print(plain.execute(sys.argv[2]).fetchall())"
    )
    counted = "select count(*) from routing"
    elsewhere = [sys.executable, "-c", code, str(file), counted]
    done = subprocess.run(elsewhere, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "[(60,)]\n"
    sample.rename(tmp_path / "moved")
    with duckdb.connect(str(file), read_only=True) as plain:
        assert plain.sql("select count(*) from runs").fetchall() == [(1,)]
        with pytest.raises(duckdb.IOException, match="No files found"):
            plain.sql(counted).fetchall()


def test_a_copy_needs_no_store(sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(sample) as db:
        expected = db.query("router-confidence", run=RUN_ID).fetchall()
        assert write_duckdb(db, file, "first", copy=True, copied_bytes=0).in_place == ()
    shutil.rmtree(sample)
    with duckdb.connect(str(file), read_only=True) as plain:
        assert_same_rows(plain.sql("from router_confidence()").fetchall(), expected)


def test_what_is_there_is_replaced_whole_or_not_at_all(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.duckdb"
    file.write_text("something else")
    with moedb.open(sample) as db:
        damaged = next((sample / "runs" / RUN_ID / "tables" / "routing").iterdir())
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-100])
        with pytest.raises(moedb.MoedbError):
            write_duckdb(db, file)
        assert file.read_text() == "something else"
        assert sorted(tmp_path.iterdir()) == sorted([sample, file])
        damaged.write_bytes(content)
        write_duckdb(db, file)
        with duckdb.connect(str(file), read_only=True) as plain:
            assert plain.sql("select count(*) from runs").fetchall() == [(2,)]
        log = tmp_path / "x.duckdb.wal"
        log.touch()
        with pytest.raises(UsageError, match=r"x\.duckdb\.wal is beside"):
            write_duckdb(db, file)
        log.unlink()
    assert {path.name for path in tmp_path.iterdir()} == {
        sample.name,
        "x.duckdb",
        "x.duckdb.provenance.json",
    }


def test_runs_are_chosen(sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(sample) as db:
        written = write_duckdb(db, file, ["text-o*", "text-half"])
        assert [run.run_id for run in written.runs] == ["text-half", "text-other"]
        with duckdb.connect(str(file), read_only=True) as plain:
            assert plain.sql("from latest_run").fetchall() == [("text-other",)]
        write_duckdb(db, file, "text-half")
        with duckdb.connect(str(file), read_only=True) as plain:
            assert plain.sql("from latest_run").fetchall() == [("text-half",)]
        with pytest.raises(RunNotFoundError):
            write_duckdb(db, file, "nosuch")


def test_it_is_held_against_the_store_again(sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with moedb.open(sample) as db:
        write_duckdb(db, file, "first")
        assert check_file(db, file).status == "same"
    labels = {"token_labels": [pa.table({"token_idx": [0], "key": ["k"], "value": ["v"]})]}
    add(sample, RUN_ID, Addition("more", "made"), labels)
    with moedb.open(sample) as db:
        assert check_file(db, file).status == "differs"
    file.write_bytes(b"x")
    with moedb.open(sample) as db:
        assert check_file(db, file).status == "edited"


class TestCommand:
    @pytest.fixture(autouse=True)
    def at_store(self, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOEDB_STORE", str(sample))
        monkeypatch.chdir(tmp_path)

    def test_writes_by_format_and_by_ending(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert run_cli(["export", "--format", "duckdb", "-o", "x.db", "--run", "first"]) == 0
        out, err = capfd.readouterr()
        assert out == "" and err.splitlines() == [
            "wrote x.db",
            "wrote x.db.provenance.json",
            f"run first ({RUN_ID})",
        ]
        assert run_cli(["export", "-o", "y.DDB", "--copy"]) == 0
        assert "2 runs: first" in capfd.readouterr().err
        for name, n_runs in (("x.db", 1), ("y.DDB", 2)):
            with duckdb.connect(name, read_only=True) as plain:
                assert plain.sql("select count(*) from runs").fetchall() == [(n_runs,)]
        assert run_cli(["export", "--check", "x.db"]) == 0

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("load-balance", "-o", "x.duckdb"), "it takes no load-balance"),
            (("-o", "x.duckdb", "--caption", "x"), "it takes no --caption"),
            (("-o", "x.duckdb", "--engine", "spark"), "it takes no --engine"),
            (("-o", "x.duckdb", "--sql", "from runs"), "it takes no --sql"),
            (("--format", "duckdb"), "an export needs a file"),
            (("load-balance", "-o", "x.csv", "--copy"), "--copy is for a file of DuckDB"),
            (("-o", "x.duckdb", "--run", "nosuch"), "no run named 'nosuch'"),
            (("-o", "no/x.duckdb"), "there is no folder no"),
            (("load-balance", "-o", "x.db"), "it takes no load-balance"),
            (("--format", "duckdb", "-o", "x.tex"), "x.tex: the name of a database of DuckDB"),
            (("--format", "duckdb", "-o", "x"), "ends in .duckdb, .ddb, .db"),
            (("--format", "duckdb", "-o", "x.duckdb.tex"), "-o x.duckdb.duckdb"),
        ],
    )
    def test_refuses(
        self, arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run_cli(["export", *arguments]) == 2
        assert said in capfd.readouterr().err
        assert not [path.name for path in Path().iterdir() if path.is_file()]
