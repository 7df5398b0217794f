"""The views that every moedb connection has over the tables."""

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import duckdb

from moedb.schemas.tables import FORMAT_MAJOR, Table
from moedb.store.engine.quoting import literal


def create_table_view(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    files: list[str],
    major: int = FORMAT_MAJOR,
) -> None:
    """Define the view ``table`` over an explicit list of Parquet files.

    Parameters
    ----------
    connection
        Where the view is made.
    table
        The table; its columns fix names, types and order.
    files
        The files that hold its rows. Without any the view is empty.
    major
        The format that they are of; columns that came later are null.
    """
    columns = ", ".join(
        f"cast({c.name if c.since <= major else 'null'} as {c.sql_type}) as {c.name}"
        for c in table.columns
    )
    if files:
        listed = ", ".join(literal(file) for file in files)
        source = f"read_parquet([{listed}])"
        condition = ""
    else:
        nulls = ", ".join(f"null as {c.name}" for c in table.columns)
        source, condition = f"(select {nulls})", " where false"
    connection.execute(
        f"create or replace view {table.name} as select {columns} from {source}{condition}"  # noqa: S608
    )


def create_derived_views(
    connection: duckdb.DuckDBPyConnection, latest_run: str | None = None, major: int = FORMAT_MAJOR
) -> None:
    """Define the views of ``moedb/sql/views``, in the order of their file names.

    The tables must be there already, as tables or as views.

    Parameters
    ----------
    connection
        Where the views are made.
    latest_run
        The run that ``latest_run`` shall be; None for the one that its SQL finds.
    major
        The format of the tables' files.
    """
    for file in _view_files():
        of_format_1 = major < 2 and file.name == _OF_FORMAT_1.name
        definition = _OF_FORMAT_1 if of_format_1 else file
        connection.execute(definition.read_text(encoding="utf-8"))
    if latest_run is not None:
        chosen = f"select run_id from runs where run_id = {literal(latest_run)}"  # noqa: S608
        connection.execute(f"create or replace view latest_run as {chosen}")


def derived_view_names() -> list[str]:
    """The names of the views of ``moedb/sql/views``: a file is called NUMBER_NAME.sql."""
    return [file.name.removesuffix(".sql").partition("_")[2] for file in _view_files()]


_FOLDER = resources.files("moedb") / "sql" / "views"
_OF_FORMAT_1 = _FOLDER / "format_1" / "33_example_routing.sql"
"""The view for stores of format 1, whose router_mass does not count decisions."""


def _view_files() -> list[Traversable]:
    files = (entry for entry in _FOLDER.iterdir() if entry.name.endswith(".sql"))
    return sorted(files, key=lambda entry: entry.name)


def create_rows_view(
    connection: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Define the view ``table`` over rows that are given as values."""
    if not rows:
        create_table_view(connection, table, [])
        return
    names = ", ".join(table.column_names)
    casts = ", ".join(f"cast({c.name} as {c.sql_type}) as {c.name}" for c in table.columns)
    values = ", ".join(
        "(" + ", ".join(literal(row[name]) for name in table.column_names) + ")" for row in rows
    )
    connection.execute(
        f"create or replace view {table.name} as "  # noqa: S608
        f"select {casts} from (values {values}) as given ({names})"
    )
