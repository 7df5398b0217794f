"""SQL that reads and nothing else."""

import re

import duckdb

from moedb.errors import SqlError, SqlRefusedError

_POSITION = re.compile(r"\bposition\s*:=", re.IGNORECASE)
# Plain options only: a comment between them could hide where the explained statement begins.
_EXPLAIN = re.compile(r"\s*explain\b\s*(\([\w\s,]*\)|analyze\b)?", re.IGNORECASE)


def check_read_only(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuse SQL that is not one statement that reads.

    What it reads is the connection's to limit.

    Raises
    ------
    SqlError
        If it is empty, or DuckDB cannot parse it.
    SqlRefusedError
        If it is several statements, or one that would write.
    """
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise SqlError(str(error), _quoting_hint(statement)) from error
    if not statements:
        raise SqlError("the SQL is empty", 'moedb sql "select * from runs"')
    if len(statements) > 1:
        raise SqlRefusedError(f"expected one SQL statement, got {len(statements)}")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains.
        found = _EXPLAIN.match(statement)
        if found is not None:
            check_read_only(connection, statement[found.end() :])
            return
    if kind != duckdb.StatementType.SELECT:
        raise SqlRefusedError(
            f"the SQL is {kind.name}, which is refused: a store is only read "
            "(select, from, with, values, describe, summarize, show, explain)",
            "results go to files with: moedb export --sql ... -o FILE",
        )


def explained(statement: str) -> str:
    """Return the statement that ``explain`` explains; the same one without it."""
    found = _EXPLAIN.match(statement)
    return statement if found is None else explained(statement[found.end() :])


def _quoting_hint(statement: str) -> str | None:
    """The name of a parameter of our macros is a keyword of DuckDB before 2.0."""
    if duckdb.__version__.startswith("1.") and _POSITION.search(statement):
        return 'DuckDB before 2.0 wants the name in quotes: "position" := ...'
    return None
