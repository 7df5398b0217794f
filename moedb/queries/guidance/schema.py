"""What SQL can be written over, without a store: tables, views, macros, functions and arrays."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from moedb.errors import UsageError, nearest_names
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.macros import create_macros, describe_macro, queries_named_in
from moedb.queries.questions.query_file import LATEST_RUN, NamedQuery
from moedb.queries.questions.view_file import described_views
from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows
from moedb.schemas.arrays import ARRAY_FUNCTIONS, ARRAYS, CHUNK_ROWS, SHARD_ROWS, ArraySpec
from moedb.schemas.tables import TABLES, Table
from moedb.store.engine.connection import open_engine
from moedb.store.engine.quoting import quoted
from moedb.store.reading.snapshot import Snapshot

_SIZES: Mapping[str, tuple[str, str]] = {
    "T": ("row", f"a token: tokens.array_row; {SHARD_ROWS} in a shard, {CHUNK_ROWS} in a chunk"),
    "E": ("expert", "the layer's experts: moe_layers.n_experts"),
    "k": ("rank", "the experts that a token chooses, by rank: moe_layers.top_k"),
    "d": ("d_model", "the width of the residual stream: runs.d_model"),
    "h": ("d_expert", "the hidden units of an expert: moe_layers.d_expert"),
    "s": ("d_shared", "the hidden units of the shared expert: d_shared in the run's run.json"),
    "V": ("token_id", "the tokens of the model's vocabulary: vocabulary.token_id"),
}


@dataclass(frozen=True)
class Described:
    """One table, view, macro, function or array.

    Attributes
    ----------
    result
        Its columns; of a macro its parameters too, of a function those alone, of an array its axes.
    about
        What it is, and how to read it.
    """

    result: Result
    about: str


def schema_list() -> Result:
    """One row for each table, view, macro, function and kind of array."""
    rows = [("table", entry.name, entry.holds) for entry in TABLES]
    rows += [("view", view.name, view.answers) for view in described_views().values()]
    rows += [("macro", q.macro_name, f"{q.answers} {_taken(q)}") for q in catalog().values()]
    rows += [
        ("function", spec.call, f"{spec.gives}: {_given(spec)}")
        for spec in ARRAY_FUNCTIONS.values()
    ]
    rows += [("array", f"{spec.name}/LAYER {spec.shape_text}", spec.doc) for spec in ARRAYS]
    return result_of_rows(dict.fromkeys(("kind", "name", "holds"), "VARCHAR"), rows)


def describe(name: str) -> Described:
    """Describe one table, view, macro (a named query), function or array.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    plain, hyphens = name.partition("/")[0], name.replace("_", "-")
    tables = {entry.name: entry for entry in TABLES}
    arrays = {spec.name: spec for spec in ARRAYS}
    if name in tables:
        return _table(tables[name])
    if name in described_views():
        return _view(name)
    if hyphens in catalog():
        return _macro(catalog()[hyphens])
    if name in ARRAY_FUNCTIONS and name not in arrays:
        return _function(ARRAY_FUNCTIONS[name])
    if plain in arrays:
        return _array(arrays[plain])
    if hyphens in ANALYSES:
        raise UsageError(
            f"{hyphens} is computed in Python, and nothing that SQL can name",
            f"moedb query {hyphens} --help",
        )
    macros = [query.macro_name for query in catalog().values()]
    known = [*tables, *described_views(), *macros, *ARRAY_FUNCTIONS, *arrays]
    near = nearest_names(name, known)
    raise UsageError(
        f"there is no table, view, macro, function or array named {name!r}"
        + (f"; {near}" if near else ""),
        "all of them are listed by: moedb schema",
    )


def _table(table: Table) -> Described:
    rows = [
        (column.name, column.sql_type, "yes" if column.nullable else "no", column.doc)
        for column in table.columns
    ]
    columns = {"column": "VARCHAR", "type": "VARCHAR", "null": "VARCHAR", "holds": "VARCHAR"}
    return Described(result_of_rows(columns, rows), f"table {table.name}: one row is {table.holds}")


def _view(name: str) -> Described:
    view = described_views()[name]
    types = _types_of_view(name)
    rows = [(column.name, types[column.name], column.doc) for column in view.columns]
    columns = {"column": "VARCHAR", "type": "VARCHAR", "holds": "VARCHAR"}
    return Described(result_of_rows(columns, rows), f"view {name}: {view.answers}")


def _macro(query: NamedQuery) -> Described:
    types = _types_of_macro(query)
    parameters = {parameter.name: parameter for parameter in query.parameters}
    rows: list[tuple[str | None, ...]] = [
        (
            "parameter",
            name,
            parameters[name].type.upper(),
            parameters[name].default_text,
            parameters[name].doc,
        )
        for name in query.positional
    ]
    rows += [
        ("column", column.name, types[column.name], None, column.doc) for column in query.columns
    ]
    names = ("is", "name", "type", "default", "holds")
    return Described(
        result_of_rows(dict.fromkeys(names, "VARCHAR"), rows),
        f"macro {query.macro_name}: {query.answers} In SQL: from {_call(query)}; as a command: "
        f"moedb query {query.name}",
    )


def _array(spec: ArraySpec) -> Described:
    rows = [(n, size, *_SIZES[size]) for n, size in enumerate((spec.first, *spec.axes))]
    columns = {"axis": "INTEGER", "size": "VARCHAR", "name": "VARCHAR", "is": "VARCHAR"}
    return Described(
        result_of_rows(columns, rows),
        f"array {spec.name}/LAYER {spec.shape_text}: {spec.doc}; in Python: "
        f"moedb.open().array(run, {spec.name!r}, layer)"
        + ("" if spec.function is None else f"; in SQL: {spec.call}"),
    )


_ARGUMENTS: Mapping[str, str] = {
    "run_id": "the run, or the beginning of its name",
    "layer": "the layer",
    "array_row": "the token's row: tokens.array_row; null gives null",
    "token_id": "the token of the vocabulary: vocabulary.token_id",
    "rank": "the rank of the expert among those that the token chooses",
    "expert": "the expert",
}


def _function(spec: ArraySpec) -> Described:
    rows = [(name, sql_type, _ARGUMENTS[name]) for name, sql_type in spec.arguments.items()]
    columns = {"argument": "VARCHAR", "type": "VARCHAR", "is": "VARCHAR"}
    return Described(
        result_of_rows(columns, rows),
        f"function {spec.call}: {_given(spec)}; a {spec.gives} where {spec.axes[-1]} is "
        f"{_SIZES[spec.axes[-1]][1]}",
    )


def _given(spec: ArraySpec) -> str:
    return f"a row of the array {spec.name}: {spec.doc}"


def _types_of_view(name: str) -> dict[str, str]:
    """The SQL types of a view's columns, over a store without runs."""
    connection, views = open_engine(Snapshot(Path(), {}))
    with closing(connection):
        views.define(name)
        described = connection.execute(f"describe {quoted(name)}").fetchall()
        return {column: sql_type for column, sql_type, *_ in described}


def _types_of_macro(query: NamedQuery) -> dict[str, str]:
    """The SQL types of a macro's columns, over a store without runs."""
    connection, views = open_engine(Snapshot(Path(), {}))
    with closing(connection):
        for named in queries_named_in(query.macro_name):
            views.define(f"{named.sql} {LATEST_RUN}")
        create_macros(connection, query.macro_name)
        return describe_macro(connection, query)


def _taken(query: NamedQuery) -> str:
    parameters = {parameter.name: parameter for parameter in query.parameters}
    named = (
        f"{name} (required)" if parameters[name].required else name for name in query.positional
    )
    return f"Parameters: {', '.join(named)}."


def _call(query: NamedQuery) -> str:
    needed = (f"{p.name} := ..." for p in query.parameters if p.required)
    return f"{query.macro_name}({', '.join(needed)})"
