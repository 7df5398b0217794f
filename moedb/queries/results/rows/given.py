"""Results that are not asked of a store: its schema, an estimate, the list of queries."""

from collections.abc import Iterable, Mapping, Sequence

from moedb.queries.results.result import Provenance, Result
from moedb.schemas.arrays import ARRAYS
from moedb.schemas.tables import TABLES, table
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import quoted
from moedb.version import __version__


def result_of_rows(columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> Result:
    """Make a result of given rows.

    Parameters
    ----------
    columns
        For each column its SQL type.
    rows
        The rows.
    """
    connection = connect_to_nothing()
    declared = ", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in columns.items())
    connection.execute(f"create table given ({declared})")
    marks = ", ".join("?" for _ in columns)
    for row in rows:
        connection.execute(f"insert into given values ({marks})", list(row))  # noqa: S608
    provenance = Provenance(None, "from given", {}, (), "", __version__)
    return Result(
        connection.table("given"),
        lambda: provenance,
        connection,
        lambda: "there is nothing to list",
    )


def table_list() -> Result:
    """One row for each table and each kind of array, with the shapes of the arrays."""
    rows = [("table", entry.name, entry.row) for entry in TABLES]
    rows += [("array", f"{spec.name}/LAYER {spec.shape_text}", spec.doc) for spec in ARRAYS]
    return result_of_rows({"kind": "VARCHAR", "name": "VARCHAR", "holds": "VARCHAR"}, rows)


def table_columns(name: str) -> Result:
    """One row for each column of a table.

    Raises
    ------
    UsageError
        If there is no such table.
    """
    rows = [
        (column.name, column.sql_type, "yes" if column.nullable else "no", column.doc)
        for column in table(name).columns
    ]
    columns = {"column": "VARCHAR", "type": "VARCHAR", "null": "VARCHAR", "holds": "VARCHAR"}
    return result_of_rows(columns, rows)
