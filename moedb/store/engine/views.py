"""The views that every moedb connection has over the tables."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

import duckdb

from moedb.schemas.tables import FORMAT_MAJOR, Table
from moedb.store.engine.quoting import literal

Relation = Literal["view", "table"]


def table_view(
    table: Table,
    files: Sequence[str],
    major: int = FORMAT_MAJOR,
    rows: Sequence[Mapping[str, Any]] = (),
    kind: Relation = "view",
) -> str:
    """Return the definition of the view ``table`` over an explicit list of Parquet files.

    Parameters
    ----------
    table
        The table; its columns fix names, types and order.
    files
        The files that hold its rows. Without any the view is empty.
    major
        The format that they are of; columns that came later are null.
    rows
        Rows that are in no file.
    kind
        ``table`` to copy the rows.
    """
    columns = ", ".join(
        f"cast({c.name if c.since <= major else 'null'} as {c.sql_type}) as {c.name}"
        for c in table.columns
    )
    if files:
        source, condition = f"read_parquet([{', '.join(map(literal, files))}])", ""
    else:
        nulls = ", ".join(f"null as {c.name}" for c in table.columns)
        source, condition = f"(select {nulls})", " where false"
    more = f" union all {_given(table, rows)}" if rows else ""
    select = f"select {columns} from {source}{condition}"  # noqa: S608
    return f"create or replace {kind} {table.name} as {select}{more}"


def rows_view(table: Table, rows: Sequence[Mapping[str, Any]], kind: Relation = "view") -> str:
    """Return the definition of the view, or table, ``table`` of rows that are given as values."""
    if not rows:
        return table_view(table, [], kind=kind)
    return f"create or replace {kind} {table.name} as {_given(table, rows)}"


def _given(table: Table, rows: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(table.column_names)
    casts = ", ".join(f"cast({c.name} as {c.sql_type}) as {c.name}" for c in table.columns)
    values = ", ".join(
        "(" + ", ".join(literal(row[name]) for name in table.column_names) + ")" for row in rows
    )
    return f"select {casts} from (values {values}) as given ({names})"  # noqa: S608


class Views:
    """The views over the tables, and those of ``moedb/sql/views``, defined once they are needed.

    To define them all takes longer than most statements run.

    Parameters
    ----------
    connection
        Where the views are made.
    tables
        For each table what returns the definition of its view; a table that is not named must be
        there already.
    latest_run
        The run that ``latest_run`` shall be; None for the one that its SQL finds.
    major
        The format of the tables' files.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Mapping[str, Callable[[], str]] | None = None,
        latest_run: str | None = None,
        major: int = FORMAT_MAJOR,
    ) -> None:
        self._connection = connection
        self._tables = dict(tables or {})
        self._undefined = view_definitions(major, latest_run)

    def define(self, sql: str) -> None:
        """Define what some SQL names, and what that needs; all where it may list or look up."""
        words = set(_WORD.findall(sql.lower()))
        is_listing = not words.isdisjoint(_LISTING) or _DESCRIBED.search(sql) is not None
        if is_listing or any(word.startswith("duckdb_") for word in words):
            self.define_all()
        self._define(words)

    def define_all(self) -> None:
        """Define those that are not there yet."""
        self._define({*self._tables, *self._undefined})

    def _define(self, names: Collection[str]) -> None:
        for name in [name for name in self._tables if name in names]:
            self._connection.execute(self._tables[name]())
            del self._tables[name]
        for name in [name for name in self._undefined if name in names]:
            definition = self._undefined.pop(name, None)
            if definition is not None:
                try:
                    self._define(_words_of(definition))
                    self._connection.execute(definition)
                except duckdb.Error:
                    self._undefined[name] = definition
                    raise


_FOLDER = resources.files("moedb") / "sql" / "views"
_OF_FORMAT_1 = "format_1"
"""The folder of the views for stores of format 1, whose router_mass does not count decisions."""

_WORD = re.compile(r"\w+")
_LISTING = frozenset(
    {"show", "describe", "summarize", "pragma", "information_schema", "pg_catalog"}
    | {"sqlite_master", "query", "query_table"}
)
"""Words of SQL that lists views, or reads one whose name it puts together."""
_DESCRIBED = re.compile(r"(?:^|[(;])\s*desc\b(?!\s*[,)])", re.IGNORECASE | re.MULTILINE)
"""``desc`` where a statement begins: in an ordering it comes after something."""


def view_definitions(major: int, latest_run: str | None = None) -> dict[str, str]:
    """Return the SQL that defines each view for stores of a format, by name.

    Parameters
    ----------
    major
        The format.
    latest_run
        The run that ``latest_run`` shall be; None for the one that its SQL finds.
    """
    found = dict(_definitions(major))
    if latest_run is not None:
        chosen = f"run_id from runs where run_id = {literal(latest_run)}"
        found["latest_run"] = f"create or replace view latest_run as select {chosen}"
    return found


def derived_view_names() -> list[str]:
    """The names of the views of ``moedb/sql/views``: a file is called NUMBER_NAME.sql."""
    return list(_definitions(FORMAT_MAJOR))


def derived_view_texts() -> Mapping[str, str]:
    """The SQL of the same views, by name."""
    return dict(_definitions(FORMAT_MAJOR))


@cache
def _words_of(definition: str) -> frozenset[str]:
    """The words of a definition, its comments left out."""
    lines = (line for line in definition.splitlines() if not line.lstrip().startswith("--"))
    return frozenset(_WORD.findall("\n".join(lines)))


@cache
def _definitions(major: int) -> dict[str, str]:
    folders = [_FOLDER] if major > 1 else [_FOLDER, _FOLDER / _OF_FORMAT_1]
    files = {
        entry.name: entry
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }
    return {
        name.removesuffix(".sql").partition("_")[2]: files[name].read_text(encoding="utf-8")
        for name in sorted(files)
    }
