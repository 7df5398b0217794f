"""The catalog of named queries: headers, parameters, macros."""

import re
import subprocess
import sys
import time

import duckdb
import pandas as pd
import pytest

from moedb.errors import MoedbError, ParameterError, QueryNotFoundError
from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog, named_query
from moedb.queries.questions.macros import create_macros
from moedb.queries.questions.query_file import NamedQuery, parse_query
from moedb.schemas.tables import TABLES
from moedb.store.engine.views import derived_view_names
from tests.support.oracles.oracle import ASKED_FOR
from tests.support.stores import synthetic

NAMES = sorted(catalog())
HEADER = """-- title: T
-- answers: Q?
-- subject: tokens
-- param run varchar = null: the run
-- param n integer = 3: how many
-- column a: first
-- source: S
"""
BODY = "select cast($run as varchar) as a, cast($n as integer) as b"


def body_of(query: NamedQuery) -> str:
    """The SQL without its comments."""
    return "\n".join(line for line in query.sql.splitlines() if not line.lstrip().startswith("--"))


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return synthetic.connect(synthetic.make_tables(0))


def test_names_are_kebab_case_and_sorted() -> None:
    assert list(catalog()) == NAMES
    assert "routing-by-class" in NAMES
    for name, query in catalog().items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert query.name == name
        assert query.macro_name == name.replace("-", "_")


@pytest.mark.parametrize("name", NAMES)
def test_header_is_complete(name: str) -> None:
    query = named_query(name)
    assert query.title and query.source
    assert query.answers.endswith("?")
    assert all(column.doc for column in query.columns)
    parameters = {parameter.name: parameter for parameter in query.parameters}
    chosen_by = {"variant", "experts", "gate"} if query.reads_trials else {"run", "split"}
    chosen_by -= {"split"} if query.reads_additions or name in ASKED_FOR else set()
    assert chosen_by <= parameters.keys()
    assert all(
        parameters[name].default is None and not parameters[name].required for name in chosen_by
    )


@pytest.mark.parametrize("name", NAMES)
def test_declared_columns_are_the_columns(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    query = named_query(name)
    required = {parameter.name: "x" for parameter in query.parameters if parameter.required}
    description = connection.execute(query.sql, bind(query, required)).description
    assert tuple(column[0] for column in description or ()) == query.column_names
    selected = body_of(query).rsplit("\nselect\n", 1)[1]
    assert "\norder by" in selected


@pytest.mark.parametrize("name", NAMES)
def test_sql_is_portable(name: str) -> None:
    body = body_of(named_query(name))
    assert body == body.rstrip()
    assert ";" not in body
    assert all(len(line) <= 100 for line in named_query(name).sql.splitlines())
    code = re.sub(r"'[^']*'", "''", body)
    for word in ("unnest", "range", "qualify", "group by all", "::", "->", "[", "list", "lambda"):
        assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", code), word
    keywords = r"\b(SELECT|FROM|WHERE|JOIN|GROUP|ORDER|CASE|CAST|AS|AND|OR)\b"
    assert not re.search(keywords, body)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_not_called_as_views(name: str) -> None:
    parts = re.findall(r"^(?:with )?(\w+) as \($", named_query(name).sql, re.MULTILINE)
    assert not {*parts} & {*derived_view_names(), *(table.name for table in TABLES)}


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_share_a_parameters_name_are_qualified(name: str) -> None:
    query = named_query(name)
    body = re.sub(r"'[^']*'", "''", body_of(query))
    body = re.sub(r"using \([^)]*\)", "", body)
    for parameter in query.parameters:
        if parameter.name == "by":
            continue
        bare = re.findall(rf"(?<![\w.$])(?<!as ){parameter.name}\b(?!\.)", body)
        assert not bare, parameter.name


def test_query_is_found_with_hyphens_or_underscores() -> None:
    assert named_query("routing_by_class") is named_query("routing-by-class")


def test_unknown_query_names_the_nearest() -> None:
    with pytest.raises(QueryNotFoundError, match="did you mean overlap") as caught:
        named_query("overlpa")
    assert caught.value.hint == "all names are listed by: moedb query"
    assert caught.value.exit_code == 2


def test_unknown_query_lists_no_more_than_the_nearest() -> None:
    with pytest.raises(QueryNotFoundError) as caught:
        named_query("routing_by_clas")
    named = [name for name in NAMES if name in caught.value.message]
    assert 1 <= len(named) <= 3
    assert "routing-by-class" in named
    with pytest.raises(QueryNotFoundError) as caught:
        named_query("zzz")
    assert caught.value.message == "no query named 'zzz'"


def test_bind_fills_defaults_and_converts() -> None:
    query = named_query("top-tokens")
    assert bind(query, {}) == {
        "run": None,
        "split": None,
        "layer": None,
        "expert": None,
        "by": "count",
        "min_count": 2,
        "n": 5,
    }
    bound = bind(query, {"layer": "3", "n": 7, "by": "lift", "min_count": None})
    assert (bound["layer"], bound["n"], bound["by"], bound["min_count"]) == (3, 7, "lift", 2)
    assert bind(named_query("routing-by-class"), {"key": 7})["key"] == "7"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("top-tokens", {"layr": 1}, "no parameter 'layr'; did you mean layer"),
        ("routing-by-class", {}, "needs the parameter 'key': the label's key"),
        ("routing-by-class", {"key": None}, "needs the parameter 'key'"),
        ("top-tokens", {"n": "five"}, "n is an integer, not 'five'"),
        ("top-tokens", {"n": 2.5}, "n is an integer, not 2.5"),
        ("top-tokens", {"n": True}, "n is an integer, not True"),
        ("top-tokens", {"n": 2**31}, "an integer of 32 bits"),
        ("top-tokens", {"by": "size"}, "by is one of count, lift, not 'size'"),
    ],
)
def test_bind_refuses(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)) as caught:
        bind(named_query(name), given)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"moedb query {name} -p ")


def test_parse_reads_every_item() -> None:
    text = HEADER.replace(
        "-- column a: first\n",
        "-- param x double = 0.5: a number\n"
        "-- param by varchar = 'it''s' in (it's, b): a choice\n"
        "-- param key varchar: the key,\n--   which is needed\n"
        "-- column a: first\n-- column b: second: with a colon\n",
    )
    body = "select cast($x as double), cast($by as varchar), cast($key as varchar), " + BODY[7:]
    query = parse_query("some-name", f"{text}{body};\n")
    assert query.sql == f"{text}{body}"
    x, by, key = query.parameters[2:]
    assert (x.type, x.default, x.required) == ("double", 0.5, False)
    assert (by.default, by.choices) == ("it's", ("it's", "b"))
    assert (key.default, key.required, key.doc) == (None, True, "the key, which is needed")
    assert query.column_names == ("a", "b")
    assert query.columns[1].doc == "second: with a colon"
    assert bind(query, {"key": "k", "x": "2"})["x"] == 2.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-- title: T\n", "", "no title"),
        ("-- column a: first\n", "", "no column"),
        ("-- title: T\n", "-- title: T\n-- title: U\n", "there twice"),
        ("-- title: T\n", "-- titel: T\n", "line '-- titel: T'"),
        ("-- column a: first", "-- column a first", "is not NAME: WHAT IT IS"),
        ("-- column a: first", "-- column a: first\n-- column a: again", "a is declared twice"),
        ("-- param n integer = 3: how", "-- param n int = 3: how", "is not NAME TYPE"),
        ("-- param n integer = 3: how", "-- param n integer = x: how", "x of n is no integer"),
        ("-- param n integer = 3: how", "-- param n integer = '3': how", "'3' of n is no integer"),
        ("varchar = null", "varchar = 'c' in (a, b)", "none of its choices"),
        ("-- param n integer = 3: how many\n", "", "$n not declared"),
        ("$run as varchar", "null as varchar", "$run not used"),
        ("cast($n as integer)", "$n", "not written cast($name as type)"),
        ("cast($n as integer)", "cast($n as bigint)", "$n is integer, and cast to bigint"),
    ],
)
def test_malformed_query_is_refused(old: str, new: str, message: str) -> None:
    text = HEADER + BODY
    assert old in text
    parse_query("fine", text)
    with pytest.raises(MoedbError, match=re.escape(message)) as caught:
        parse_query("some-name", text.replace(old, new))
    assert "some-name.sql" in caught.value.message


def test_macros_have_the_queries_parameters(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        "select function_name, parameters from duckdb_functions() "
        "where function_type = 'table_macro' and not internal"
    ).fetchall()
    macros = {name: set(parameters) for name, parameters in rows}
    for query in catalog().values():
        names = {parameter.name for parameter in query.parameters}
        assert macros[query.macro_name] == names


def test_macro_without_its_required_parameter_says_so(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    with pytest.raises(duckdb.BinderException, match="routing_by_class"):
        connection.execute("from routing_by_class(layer := 2)")
    by_position = connection.execute("from routing_by_class('template', layer := 2)").fetchall()
    assert (
        by_position
        == connection.execute("from routing_by_class(layer := 2, key := 'template')").fetchall()
    )


def test_macros_leave_nothing_else_behind_and_can_be_made_again(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    create_macros(connection)
    left = connection.execute("select table_name from duckdb_tables() where temporary").fetchall()
    assert left == []
    assert connection.execute("select count(*) from expert_frequency()").fetchone() != (0,)


def test_only_the_macros_that_are_used_are_made(connection: duckdb.DuckDBPyConnection) -> None:
    cursor = connection.cursor()
    cursor.execute("create schema other")
    cursor.execute("set schema = 'other'")
    cursor.execute("create view other.tokens as select 1 as token_idx")
    create_macros(cursor, "select count(*) from tokens")
    listed = "select function_name from duckdb_functions() where schema_name = 'other'"
    assert cursor.execute(listed).fetchall() == []
    cursor.execute("drop schema other cascade")

    cursor.execute("set schema = 'main'")
    cursor.execute("drop macro table overlap")
    create_macros(cursor, "SELECT * FROM Overlap() WHERE layer = 2")
    assert len(cursor.execute("from overlap()").fetchall()) == 3


def test_macro_is_a_table_like_any_other(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        """
        select f.layer, c.value, sum(c.n_decisions) as n
        from expert_frequency() as f
        join routing_by_class(key := 'template') as c using (layer, expert)
        where f.n_decisions > 0
        group by all
        order by all
        """
    ).fetchall()
    assert len(rows) == 3 * 4


def test_catalog_loads_fast_and_imports_little() -> None:
    program = (
        "import sys, time; start = time.perf_counter();"
        "from moedb.queries.questions.catalog import catalog; catalog();"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'pydantic', 'duckdb', 'torch'} & set(sys.modules);"
        "sys.stdout.write(f'{heavy or None} {time.perf_counter() - start}')"
    )
    started = time.perf_counter()
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    heavy, seconds = output.split()
    assert heavy == "None"
    assert float(seconds) < 1.0 < time.perf_counter() - started + 1.0


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("expert-frequency", {}),
        ("routing-by-class", {"key": "template", "layer": "3"}),
        ("overlap", {"key": "kind", "value_a": "all", "value_b": "'s"}),
    ],
)
def test_sql_that_is_written_out_runs_as_it_is(
    connection: duckdb.DuckDBPyConnection, name: str, given: dict[str, str]
) -> None:
    text = named_query(name).written_out(bind(named_query(name), given))
    ((newest,),) = connection.execute("from latest_run").fetchall()
    values = bind(named_query(name), {**given, "run": newest})
    expected = connection.execute(named_query(name).sql, values).df()
    assert len(expected)
    pd.testing.assert_frame_equal(connection.execute(text).df(), expected, rtol=1e-12)
