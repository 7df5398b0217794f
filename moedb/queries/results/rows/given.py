"""Results that are not asked of a store: what there is to ask, an estimate, what was computed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from moedb.queries.results.result import Provenance, Result
from moedb.schemas.version import __version__
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def relation_of_table(
    table: "pa.Table", cells: str = "*"
) -> "tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation]":
    """Put a table into a DuckDB relation of its own, in its order; return its connection too.

    Parameters
    ----------
    table
        The table.
    cells
        The columns of the relation, in SQL over those of the table.
    """
    connection = connect_to_nothing()
    connection.register("incoming", table)
    connection.execute(f"create table given as select {cells} from incoming")  # noqa: S608
    connection.unregister("incoming")
    return connection, connection.table("given")


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
