"""What there is to ask: tables, views, macros and arrays, each described."""

import duckdb
import pytest

from moedb.errors import MoedbError, UsageError
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.database import open_database
from moedb.queries.guidance.overview import query_list
from moedb.queries.guidance.schema import describe, schema_list
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.question import SUBJECTS
from moedb.schemas.arrays import ARRAYS
from tests.support.stores.samples import write_sample


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """A connection on which every view and macro of a store is defined."""
    store = tmp_path_factory.mktemp("schema") / "store"
    write_sample(store)
    database = open_database(store)
    with pytest.raises(UsageError):  # so that all of them are
        database.sql("from no_such_macro()")
    return database.sql("select 1").connection


def names_of(kind: str) -> list[str]:
    return [name for each, name, _ in schema_list().fetchall() if each == kind]


def test_the_list_has_what_duckdb_has(connection: duckdb.DuckDBPyConnection) -> None:
    views = connection.execute(
        "select view_name from duckdb_views() where not internal and schema_name = 'main'"
    ).fetchall()
    assert sorted(names_of("table") + names_of("view")) == sorted(name for (name,) in views)
    macros = connection.execute(
        "select function_name, parameters from duckdb_functions() "
        "where function_type = 'table_macro' and not internal"
    ).fetchall()
    holds = {name: text for kind, name, text in schema_list().fetchall() if kind == "macro"}
    assert sorted(holds) == sorted(name for name, _ in macros)
    for name, parameters in macros:
        told = holds[name].split("Parameters: ")[1].replace(" (required)", "")
        assert told == ", ".join(parameters) + "."
    calls = names_of("function")
    assert len(calls) == len(ARRAYS) - 1  # final_norm has no rows that one points to
    for call in calls:
        connection.execute(f"explain select {_called(call)}")
    assert [name.split("/")[0] for name in names_of("array")] == [spec.name for spec in ARRAYS]


def _called(call: str) -> str:
    name, arguments = call.rstrip(")").split("(")
    return f"{name}({', '.join('null' for _ in arguments.split(', '))})"


def test_every_table_and_view_is_described_as_it_is(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for name in names_of("table") + names_of("view"):
        found = describe(name)
        said = [(column, sql_type) for column, sql_type, *_ in found.result.fetchall()]
        real = connection.execute(f'describe from "{name}"').fetchall()
        assert said == [(column, sql_type) for column, sql_type, *_ in real], name
        assert name in found.about


def test_every_macro_is_described_as_it_is(connection: duckdb.DuckDBPyConnection) -> None:
    for query in catalog().values():
        rows = describe(query.macro_name).result.fetchall()
        assert rows == describe(query.name).result.fetchall()
        needed = ", ".join("null" for parameter in query.parameters if parameter.required)
        real = connection.execute(f"describe from {query.macro_name}({needed})").fetchall()
        said = [(name, sql_type) for kind, name, sql_type, *_ in rows if kind == "column"]
        assert said == [(column, sql_type) for column, sql_type, *_ in real], query.name
        parameters = [row for row in rows if row[0] == "parameter"]
        assert len(parameters) == len(query.parameters)


def test_some_of_what_is_said() -> None:
    rows = describe("top_tokens").result.fetchall()
    assert rows[0][:4] == ("parameter", "run", "VARCHAR", "null")
    assert ("min_count", "INTEGER", "2") in [row[1:4] for row in rows]
    assert "from routing_by_class(key := ...)" in describe("routing_by_class").about
    axes = describe("expert_outputs/3").result.fetchall()
    assert [row[:3] for row in axes] == [(0, "T", "row"), (1, "k", "rank"), (2, "d", "d_model")]
    assert axes == describe("expert_outputs").result.fetchall()
    arguments = describe("expert_output").result.fetchall()
    assert [row[0] for row in arguments] == ["run_id", "layer", "array_row", "rank"]
    assert "expert_output(run_id, layer, array_row, rank)" in describe("expert_outputs").about
    assert "residual_mid(run_id, layer, array_row)" in describe("residual_mid").about


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokns", "did you mean tokens"),
        ("routing_by_clas", "did you mean routing_by_class"),
        ("router_logit", "did you mean router_logits"),
        ("expert_outpt", "did you mean expert_output"),
        ("zzzz", "all of them are listed by: moedb schema"),
        ("logit-lens", "moedb query logit-lens --help"),
    ],
)
def test_an_unknown_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        describe(name)
    assert said in str(caught.value)


def test_questions_are_listed_by_subject() -> None:
    rows = query_list().fetchall()
    assert sorted(name for _, name, *_ in rows) == sorted([*catalog(), *ANALYSES])
    subjects = [subject for subject, *_ in rows]
    assert list(dict.fromkeys(subjects)) == list(SUBJECTS)
    assert subjects == sorted(subjects, key=list(SUBJECTS).index)


def test_a_subject_is_one_of_those() -> None:
    from dataclasses import replace

    analysis = next(iter(ANALYSES.values()))
    with pytest.raises(MoedbError, match="has the subject 'expert', which is none of"):
        replace(analysis, subject="expert")  # type: ignore[arg-type]
