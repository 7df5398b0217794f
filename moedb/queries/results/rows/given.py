"""Results that are not asked of a store: what there is to ask, an estimate."""

from collections.abc import Iterable, Mapping, Sequence

from moedb.queries.results.result import Provenance, Result
from moedb.schemas.version import __version__
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import quoted


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
