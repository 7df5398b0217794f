"""A DuckDB connection over a snapshot that can read the store and nothing else."""

import duckdb

from moedb.schemas.tables import RUNS, TABLES
from moedb.store.engine.spilling import spill_folder
from moedb.store.engine.views import DerivedViews, create_rows_view, create_table_view
from moedb.store.reading.snapshot import Snapshot


def connect(snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with a view for each table of the snapshot.

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
    for table in TABLES:
        if table is RUNS:
            # From the manifests: a run has a row from its first moment on.
            create_rows_view(connection, RUNS, [run.row for run in snapshot.runs.values()])
        else:
            create_table_view(connection, table, files[table.name], snapshot.format)
    return connection


def derived_views(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> DerivedViews:
    """The views over the tables of a connection to ``snapshot``, to be defined when needed."""
    return DerivedViews(connection, snapshot.chosen, snapshot.format)
