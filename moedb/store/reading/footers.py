"""The footers of Parquet files: whether they can be read, and hold the columns of their table."""

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import duckdb

from moedb.errors import StoreDamagedError
from moedb.schemas.tables import Table
from moedb.store.reading.memory import connect_in_memory
from moedb.store.reading.places.file_systems import addresses, cannot_reach, raised_by_file_system

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PHYSICAL_TYPES = {
    "int32": "INT32",
    "int64": "INT64",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "BYTE_ARRAY",
}

_COLUMNS = """
select file_name, list(name || ' ' || type)
from parquet_schema($files)
where type is not null
group by file_name
"""

_COUNTS = "select file_name, num_rows from parquet_file_metadata($files)"


def damaged_footers(
    files: Mapping[Table, Iterable[str]],
    major: int,
    elsewhere: "AbstractFileSystem | None" = None,
) -> dict[str, StoreDamagedError]:
    """Find the files whose footers would keep every query on their table from running.

    Parameters
    ----------
    files
        For each table its files.
    major
        The format that they are of.
    elsewhere
        What reads them, where they are not on a disk.

    Returns
    -------
    dict
        For each damaged file what is wrong with it.

    Raises
    ------
    StoreError
        If object storage cannot be reached.
    """
    pairs = [(table, path) for table, paths in files.items() for path in paths]
    if not pairs:
        return {}
    with _cursor(elsewhere) as connection:
        try:
            found = _columns(connection, {path for _, path in pairs}, elsewhere)
        except duckdb.Error:
            found = {}
        damaged = {}
        for table, path in pairs:
            try:
                columns = found.get(path) or _columns(connection, [path], elsewhere)[path]
                _check(path, table, columns, major)
            except (duckdb.Error, KeyError) as error:
                _expect_reached(path, error)
                what = " ".join(str(error).split())
                damaged[path] = StoreDamagedError(f"{path} is no Parquet file: {what}")
            except StoreDamagedError as error:
                damaged[path] = error
    return damaged


def row_counts(
    files: Iterable[str], elsewhere: "AbstractFileSystem | None" = None
) -> dict[str, int]:
    """How many rows Parquet files hold, by their footers.

    Raises
    ------
    StoreDamagedError
        If a footer cannot be read.
    StoreError
        If object storage cannot be reached.
    """
    listed = list(files)
    if not listed:
        return {}
    with _cursor(elsewhere) as connection:
        try:
            rows = connection.execute(_COUNTS, {"files": listed}).fetchall()
        except duckdb.Error as error:
            _expect_reached(listed[0], error)
            what = " ".join(str(error).split())
            raise StoreDamagedError(f"a footer cannot be read: {what}") from error
    called = _called(listed, elsewhere)
    return {called[name]: count for name, count in rows}


def _called(files: Iterable[str], elsewhere: "AbstractFileSystem | None") -> dict[str, str]:
    """For each name that DuckDB has for a file the one that was given."""
    if elsewhere is None:
        return {name: name for name in files}
    return {each: name for name in files for each in addresses(elsewhere, name)}


def _expect_reached(path: str, error: Exception) -> None:
    raised = raised_by_file_system(str(error))
    if raised is not None:
        raise cannot_reach(path, raised) from error


def _cursor(elsewhere: "AbstractFileSystem | None") -> duckdb.DuckDBPyConnection:
    if elsewhere is None:
        return _connection().cursor()
    connection = connect_in_memory()
    connection.register_filesystem(elsewhere)
    return connection


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    # one for the process: to open another takes longer than to read the footers of a hundred files
    connection = connect_in_memory()
    # some versions take a file that changed within a second for the one that they have read
    connection.execute("set enable_external_file_cache = false")
    return connection


def _columns(
    connection: duckdb.DuckDBPyConnection,
    files: Collection[str],
    elsewhere: "AbstractFileSystem | None",
) -> dict[str, set[str]]:
    rows = connection.execute(_COLUMNS, {"files": list(files)}).fetchall()
    called = _called(files, elsewhere)
    return {called[name]: set(columns) for name, columns in rows}


def _check(path: str, table: Table, columns: set[str], major: int) -> None:
    expected = [
        f"{column.name} {_PHYSICAL_TYPES[column.type]}"
        for column in table.columns
        if column.since <= major
    ]
    missing = [column for column in expected if column not in columns]
    if missing:
        raise StoreDamagedError(f"{path} lacks columns of {table.name}: {', '.join(missing)}")
