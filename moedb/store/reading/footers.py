"""The footers of Parquet files: whether they can be read, and hold the columns of their table."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import duckdb

from moedb.errors import StoreDamagedError
from moedb.schemas.tables import Table

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
    files: Mapping[Table, Iterable[Path]], major: int
) -> dict[Path, StoreDamagedError]:
    """Find the files whose footers would keep every query on their table from running.

    Parameters
    ----------
    files
        For each table its files.
    major
        The format that they are of.

    Returns
    -------
    dict
        For each damaged file what is wrong with it.
    """
    pairs = [(table, path) for table, paths in files.items() for path in paths]
    if not pairs:
        return {}
    with _connection().cursor() as connection:
        try:
            found = _columns(connection, {path for _, path in pairs})
        except duckdb.Error:
            found = {}
        damaged = {}
        for table, path in pairs:
            try:
                columns = found.get(path) or _columns(connection, [path])[path]
                _check(path, table, columns, major)
            except (duckdb.Error, KeyError) as error:
                what = " ".join(str(error).split())
                damaged[path] = StoreDamagedError(f"{path} is no Parquet file: {what}")
            except StoreDamagedError as error:
                damaged[path] = error
    return damaged


def row_counts(files: Iterable[Path]) -> dict[Path, int]:
    """How many rows Parquet files hold, by their footers.

    Raises
    ------
    StoreDamagedError
        If a footer cannot be read.
    """
    listed = [str(path) for path in files]
    if not listed:
        return {}
    with _connection().cursor() as connection:
        try:
            rows = connection.execute(_COUNTS, {"files": listed}).fetchall()
        except duckdb.Error as error:
            what = " ".join(str(error).split())
            raise StoreDamagedError(f"a footer cannot be read: {what}") from error
    return {Path(name): count for name, count in rows}


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    # one for the process: to open another takes longer than to read the footers of a hundred files
    connection = duckdb.connect(":memory:")
    connection.execute("set enable_progress_bar = false")
    return connection


def _columns(connection: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> dict[Path, set[str]]:
    rows = connection.execute(_COLUMNS, {"files": [str(path) for path in files]}).fetchall()
    return {Path(name): set(columns) for name, columns in rows}


def _check(path: Path, table: Table, columns: set[str], major: int) -> None:
    expected = [
        f"{column.name} {_PHYSICAL_TYPES[column.type]}"
        for column in table.columns
        if column.since <= major
    ]
    missing = [column for column in expected if column not in columns]
    if missing:
        raise StoreDamagedError(f"{path} lacks columns of {table.name}: {', '.join(missing)}")
