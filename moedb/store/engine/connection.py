"""A DuckDB connection over a snapshot that can read the store and nothing else."""

from collections.abc import Callable
from functools import partial

import duckdb

from moedb.schemas.tables import RUNS, TABLES
from moedb.store.engine.spilling import spill_folder
from moedb.store.engine.views import Views, rows_view, table_view
from moedb.store.reading.snapshot import Snapshot


def connect(snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with all views over a snapshot, see :func:`open_engine`."""
    connection, views = open_engine(snapshot)
    views.define_all()
    return connection


def open_engine(snapshot: Snapshot) -> tuple[duckdb.DuckDBPyConnection, Views]:
    """Open an in-memory connection, and make the views over the snapshot that it can have.

    The connection reads the files that the snapshot names: no other file, no network, no
    extension, no variable of the calling program.
    """
    connection = duckdb.connect(":memory:")
    files = {table.name: snapshot.file_names(table.name) for table in TABLES}
    every_file = sorted(path for paths in files.values() for path in paths)
    # DuckDB may always use its folder for spilling, so that must be one that holds nothing else.
    connection.execute("set temp_directory = ?", [str(spill_folder() or "")])
    # its bar, shown from the second second on, is written to stdout, between the rows
    connection.execute("set enable_progress_bar = false")
    # the same SQL prints the same times everywhere
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set python_enable_replacements = false")
    connection.execute("set allowed_paths = ?", [every_file])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    definitions: dict[str, Callable[[], str]] = {
        table.name: partial(table_view, table, files[table.name], snapshot.format)
        for table in TABLES
    }
    # From the manifests: a run has a row from its first moment on.
    rows = [run.row for run in snapshot.runs.values()]
    definitions[RUNS.name] = partial(rows_view, RUNS, rows)
    return connection, Views(connection, definitions, snapshot.chosen, snapshot.format)
