"""The named queries as DuckDB table macros, for use within other SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.parameters import RUN_PARAMETERS
from moedb.queries.questions.query_file import LATEST_RUN, PARAMETER_MARK
from moedb.store.engine.quoting import literal, quoted

if TYPE_CHECKING:
    import duckdb

    from moedb.queries.questions.query_file import NamedQuery


def create_macros(
    connection: duckdb.DuckDBPyConnection,
    used_in: str | None = None,
    run_names: Mapping[str, str] | None = None,
    default_runs: Mapping[str, str] | None = None,
) -> None:
    """Define every named query as a table macro: ``from routing_by_class(key := 'template')``.

    A macro has its query's parameters, by name or in their order, and their defaults; null stands
    for the default there too. The tables and views that the queries read must exist, and may be
    replaced later.

    Parameters
    ----------
    connection
        Where the macros are made: in its current schema.
    used_in
        Some SQL: define no more than the macros that it names, at some 10 ms each.
    run_names
        Other names of runs that may be given for them, with the names that they are stored as.
    default_runs
        By a query's name the run that it reads where none is given; ``latest_run`` unless there. A
        name lets DuckDB pass over the files of other runs.
    """
    wanted = list(catalog().values()) if used_in is None else queries_named_in(used_in)
    if not wanted:
        return
    (catalog_name, schema_name), *_ = connection.execute(
        "select current_database(), current_schema()"
    ).fetchall()
    # DuckDB refuses a macro while a column anywhere below it, in the body of a view too, bears a
    # parameter's name unqualified. It looks at creation only: empty tables stand in for the views.
    read = frozenset[str]().union(*(query.relations for query in wanted))
    relations: dict[str, list[str]] = {}
    for relation, column, column_type in connection.execute(
        """
        select table_name, column_name, data_type
        from duckdb_columns()
        where database_name = current_database()
            and schema_name = current_schema()
            and not internal
        order by table_name, column_index
        """
    ).fetchall():
        if relation in read:
            relations.setdefault(relation, []).append(f"{quoted(column)} {column_type}")
    stand_ins: list[str] = []
    try:
        for relation, columns in relations.items():
            connection.execute(f"create temp table {quoted(relation)} ({', '.join(columns)})")
            stand_ins.append(relation)
        for query in wanted:
            connection.execute(
                _macro_sql(
                    query,
                    catalog_name,
                    schema_name,
                    run_names or {},
                    (default_runs or {}).get(query.name),
                )
            )
    finally:
        for relation in stand_ins:
            connection.execute(f"drop table temp.{quoted(relation)}")


def queries_named_in(sql: str) -> list[NamedQuery]:
    """The named queries whose macros some SQL may call: their names stand in it."""
    words = set(re.findall(r"\w+", sql.lower()))
    return [query for query in catalog().values() if query.macro_name in words]


def describe_macro(connection: duckdb.DuckDBPyConnection, query: NamedQuery) -> dict[str, str]:
    """Return the SQL type of each column of a macro, which must be defined."""
    nulls = ", ".join("null" for parameter in query.parameters if parameter.required)
    described = connection.execute(f"describe from {quoted(query.macro_name)}({nulls})").fetchall()
    return {name: sql_type for name, sql_type, *_ in described}


def _macro_sql(
    query: NamedQuery,
    catalog_name: str,
    schema_name: str,
    run_names: Mapping[str, str],
    default_run: str | None,
) -> str:
    defaults = {parameter.name: literal(parameter.default) for parameter in query.parameters}
    if "run" in defaults and not query.reads_trials:
        defaults["run"] = LATEST_RUN if default_run is None else literal(default_run)
    whole_names = " ".join(
        f"when {literal(begun)} then {literal(whole)}" for begun, whole in sorted(run_names.items())
    )

    def replacement(mark: re.Match[str]) -> str:
        name, default = quoted(mark[1]), defaults[mark[1]]
        if mark[1] in RUN_PARAMETERS and whole_names:
            name = f"case {name} {whole_names} else {name} end"
        return name if default == "null" else f"coalesce({name}, {default})"

    parameters = {parameter.name: parameter for parameter in query.parameters}
    signature = ", ".join(
        quoted(name)
        + ("" if parameters[name].required else f" := {literal(parameters[name].default)}")
        for name in query.positional
    )
    macro = f"{quoted(catalog_name)}.{quoted(schema_name)}.{quoted(query.macro_name)}"
    body = PARAMETER_MARK.sub(replacement, query.sql)
    return f"create or replace macro {macro}({signature}) as table\n{body}"
