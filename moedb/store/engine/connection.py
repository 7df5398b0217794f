"""A DuckDB connection over a snapshot that can read the store and nothing else."""

from collections.abc import Callable, Collection
from functools import partial

import duckdb

from moedb.schemas.tables import RUN_LABELS, RUNS, TABLES, Table
from moedb.store.engine.spilling import spill_folder
from moedb.store.engine.table_files import TableFiles
from moedb.store.engine.views import Views, rows_view, table_view
from moedb.store.reading.places.file_systems import addresses
from moedb.store.reading.snapshot import Snapshot


def connect(snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with all views over a snapshot, see :func:`open_engine`."""
    connection, views = open_engine(snapshot)
    views.define_all()
    return connection


def open_engine(
    snapshot: Snapshot, hashed: Collection[str] = ()
) -> tuple[duckdb.DuckDBPyConnection, Views]:
    """Open an in-memory connection, and make the views over the snapshot that it can have.

    The connection reads the folders of the tables of the snapshot's runs, which hold no links: no
    other file, no network, no extension, no variable of the calling program.

    Parameters
    ----------
    snapshot
        What is read. A table's files are checked when its view is defined.
    hashed
        The runs whose files are read against their hashes then.
    """
    connection = duckdb.connect(":memory:")
    files = TableFiles(snapshot, hashed)
    # DuckDB may always use its folder for spilling, so that must be one that holds nothing else.
    connection.execute("set temp_directory = ?", [str(spill_folder() or "")])
    # its bar, shown from the second second on, is written to stdout, between the rows
    connection.execute("set enable_progress_bar = false")
    # the same SQL prints the same times everywhere
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set python_enable_replacements = false")
    folders = files.folders
    if snapshot.remote is not None:
        elsewhere = snapshot.remote.file_system
        connection.register_filesystem(elsewhere)
        folders = [each for folder in folders for each in addresses(elsewhere, folder)]
    # not file by file: to allow ninety thousand takes seconds
    connection.execute("set allowed_directories = ?", [folders])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")

    names = [
        {"run_id": run.run_id, "key": key, "value": value}
        for run in snapshot.runs.values()
        for key, value in run.named.labels.items()
    ]

    def view_of(table: Table) -> str:
        given = names if table is RUN_LABELS else ()
        return table_view(table, files.of_table(table.name), snapshot.format, given)

    definitions: dict[str, Callable[[], str]] = {
        table.name: partial(view_of, table) for table in TABLES
    }
    # From the manifests: a run has a row from its first moment on.
    rows = [run.row for run in snapshot.runs.values()]
    definitions[RUNS.name] = partial(rows_view, RUNS, rows)
    return connection, Views(connection, definitions, snapshot.chosen, snapshot.format)


def connect_to_nothing(
    threads: int | None = None, *, joins_as_written: bool = False
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection for rows that are put into it: it reads no file, no network.

    Parameters
    ----------
    threads
        How many it works with; None for as many as there are cores.
    joins_as_written
        Whether tables are joined in the order in which the SQL has them.
    """
    connection = duckdb.connect(":memory:")
    if threads is not None:
        connection.execute(f"set threads = {threads}")
    if joins_as_written:
        connection.execute("set disabled_optimizers = 'join_order'")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar = false")
    connection.execute("set python_enable_replacements = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection
