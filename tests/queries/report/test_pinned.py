"""Files that were exported, held against the store again."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

import moedb
from moedb.queries.database import Database
from moedb.queries.figures.drawing import draw
from moedb.queries.report.citation import cited
from moedb.queries.report.pinned import check_file, read_sidecar
from moedb.queries.results.export import export
from moedb.queries.results.rows.refinement import Refinement, refined
from moedb.queries.results.sheets import TableOptions
from moedb.schemas.run_names import RunName
from moedb.store.writing.naming import name_run
from tests.support.stores.samples import RUN_ID, write_sample


@pytest.fixture
def database(mini_store: Path) -> Database:
    return moedb.open(mini_store)


def change_sidecar(path: Path, **changed: object) -> None:
    sidecar = path.with_name(f"{path.name}.provenance.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changed))


@pytest.mark.parametrize("ending", ["tex", "csv", "md", "html", "json", "jsonl", "parquet"])
def test_what_the_store_still_gives_is_the_same(
    database: Database, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"table.{ending}"
    found = refined(
        database.query("routing-by-class", key="role", layer=2), Refinement("lift > 1", "lift desc")
    )
    export(found, path, TableOptions(limit=5, columns=("value", "expert", "lift")))
    assert check_file(database, path).status == "same"


def test_pivots_figures_sql_analyses_and_many_runs_are_made_again(
    database: Database, tmp_path: Path
) -> None:
    runs = sorted(database.snapshot.runs)
    by_layer = "select layer, count(*) as n from routing group by 1 order by 1"
    pivot = TableOptions(
        pivot=("layer", "expert", "share"), caption="A & B", bold="row-max", precision=2
    )
    results = {
        "pivot.tex": database.query("expert-frequency"),
        "sql.csv": database.sql(by_layer),
        "one.csv": database.sql("select count(*) as n from tokens", run=runs[0]),
        "information.csv": database.query("label-information", key="template", permutations=20),
        "both.csv": database.query("load-balance", run=runs),
    }
    for name, result in results.items():
        export(result, tmp_path / name, pivot if name == "pivot.tex" else None)
    draw("expert-frequency", database.query("expert-frequency"), tmp_path / "figure.svg")
    found = {name: check_file(database, tmp_path / name) for name in (*results, "figure.svg")}
    assert {name: each.status for name, each in found.items()} == dict.fromkeys(found, "same")


def test_a_run_that_is_called_otherwise_gives_the_same_numbers(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_sample(store)
    files = [tmp_path / name for name in ("table.tex", "table.md", "sql.html", "figure.svg")]
    for name in ("first", "second"):
        with moedb.open(store) as database:
            used = database.query("expert-frequency")
            for path in files[:2]:
                export(used, path)
            export(database.sql("select count(*) as n from tokens", run=RUN_ID), files[2])
            draw("expert-frequency", used, files[3])
        name_run(store, RUN_ID, RunName(name=name))
        with moedb.open(store) as database:
            found = {path.name: check_file(database, path) for path in files}
            told = str(database.query("expert-frequency").footer)
        assert {each: of.status for each, of in found.items()} == dict.fromkeys(found, "same")
        assert name in told


def test_other_numbers_are_told_with_the_line(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    export(database.sql("select 1 as a, 2 as b"), path)
    change_sidecar(path, sql="select 1 as a, 3 as b")
    found = check_file(database, path)
    assert found.status == "differs"
    assert found.detail == "line 2: '1,2' is now '1,3'"


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
@pytest.mark.parametrize(
    ("was", "now", "status"),
    [
        ("0.1::double + 0.2::double", "0.3::double", "same"),
        ("1e-17::double", "0::double", "same"),
        ("'0.30000000000000004 of 2'", "'0.3 of 2'", "same"),
        ("0.3::double", "0.300000001::double", "differs"),
        ("1000000000000001", "1000000000000002", "differs"),
        ("'run-1e5a'", "'run-1e6a'", "differs"),
        ("0.5::double", "null::double", "differs"),
    ],
)
def test_the_last_digits_of_a_number_are_no_difference(
    database: Database, tmp_path: Path, ending: str, was: str, now: str, status: str
) -> None:
    path = tmp_path / f"table.{ending}"
    export(database.sql(f"select {was} as a, 7 as b"), path)
    change_sidecar(path, sql=f"select {now} as a, 7 as b")
    assert check_file(database, path).status == status


def test_a_file_that_was_edited_is_not_computed_again(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    export(database.sql("select 1 as a"), path)
    path.write_text("a\n2\n")
    assert check_file(database, path).status == "edited"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"runs": [{"run_id": "text-0000"}]}, "no run named 'text-0000'"),
        ({"name": "no-such-query"}, "no-such-query"),
        ({"options": {"colour": "red"}}, "colour"),
        ({"sql": "drop table routing"}, "refused"),
        ({"parameters": [1]}, "no sidecar of moedb"),
        ({"format": "exe"}, "no format 'exe'"),
    ],
)
def test_what_cannot_be_computed_is_said(
    database: Database, tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    path = tmp_path / "table.csv"
    export(database.sql("select 1 as a"), path)
    change_sidecar(path, **changed)
    found = check_file(database, path)
    assert found.status == "unknown"
    assert says in found.detail


def test_a_version_below_a_table_is_no_difference(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    export(database.query("load-balance"), path)
    older = path.read_bytes().replace(b"moedb 0.1.0", b"moedb 0.0.9")
    assert older != path.read_bytes()
    path.write_bytes(older)
    change_sidecar(path, moedb_version="0.0.9", sha256=hashlib.sha256(older).hexdigest())
    assert check_file(database, path).status == "same"


def test_a_citation_names_model_data_measure_and_intervals(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "lens.csv"
    export(database.query("logit-lens", samples=50, seed=3), path)
    told = read_sidecar(path)
    run = database.snapshot.run(told["runs"][0]["run_id"])
    text = cited([run], told)
    assert f"@misc{{{run.run_id}," in text
    assert run.row["model_sha256"] in text
    assert run.row["dataset_sha256"] in text
    assert f"{run.row['n_tokens']:,} tokens" in text
    assert "The measure is logit-lens" in text
    assert r"95 \% BCa bootstrap intervals over clusters of examples, 50 samples, seed 3" in text


def test_names_in_a_citation_are_text(database: Database) -> None:
    run = next(iter(database.snapshot.runs.values()))
    hostile = replace(run.manifest, row=run.manifest.row | {"dataset": "50% of {a}_b \\x\n#"})
    text = cited([replace(run, manifest=hostile)])
    assert r"50\% of \{a\}\_b \textbackslash{}x" in text
    assert r"\#" in text
