"""The rows of a relation some at a time, by every DuckDB that moedb runs with."""

from collections.abc import Generator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def row_batches(
    relation: "duckdb.DuckDBPyRelation", connection: "duckdb.DuckDBPyConnection", size: int
) -> Generator[list[tuple[Any, ...]], None, None]:
    """Return the rows of a relation in batches.

    They are computed as they are taken, but for a relation with values of parameters: those rows
    wait in DuckDB's memory, many times smaller than as Python's objects.

    Parameters
    ----------
    relation
        What is read.
    connection
        Its connection: it does nothing else until the iterator has ended or is closed.
    size
        Rows of a batch at most.
    """
    if hasattr(type(relation), "fetchmany"):  # until DuckDB 1.5
        fresh: Any = relation.set_alias("moedb_rows")
        while batch := fresh.fetchmany(size):
            yield batch
        return
    text = relation.sql_query()
    if connection.extract_statements(text)[0].named_parameters:
        rows = iter(relation.iter_rows(size))
        while batch := list(islice(rows, size)):
            yield batch
        return
    connection.execute(text)
    is_read = False
    try:
        while batch := connection.fetchmany(size):
            yield batch
        is_read = True
    finally:
        if not is_read:
            connection.abort()


def arrow_batches(
    relation: "duckdb.DuckDBPyRelation", size: int
) -> "Generator[pa.RecordBatch, None, None]":
    """Return the rows of a relation in batches of Arrow of about as many rows."""
    import duckdb

    try:
        if hasattr(type(relation), "to_arrow_reader"):
            yield from relation.to_arrow_reader(size)
        else:  # until DuckDB 1.5
            yield from relation.fetch_record_batch(size)
    except OSError as error:  # as pyarrow passes on what DuckDB raises
        raise duckdb.Error(str(error)) from error
