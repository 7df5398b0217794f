"""A DuckDB connection over a snapshot that can read the store and nothing else."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from moedb.schemas.tables import RUN_LABELS, RUNS, TABLES, Table
from moedb.store.engine.spilling import spill_folder
from moedb.store.engine.table_files import TableFiles
from moedb.store.engine.views import Relation, Views, rows_view, table_view
from moedb.store.reading.memory import connect_in_memory, hide_bar
from moedb.store.reading.places.file_systems import addresses
from moedb.store.reading.snapshot import Snapshot

OLDEST_READER = "v1.4.0"
"""The DuckDB that can read files that are written here: the oldest that moedb runs with."""


@dataclass(frozen=True)
class DatabaseFile:
    """A file of DuckDB in which the views are made, rather than in memory.

    Attributes
    ----------
    path
        Where; nothing is there yet.
    copied
        The tables whose rows are copied into it. Of others it has a view over the files of the
        snapshot, by their whole paths.
    """

    path: Path
    copied: Collection[str]


def connect(snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with all views over a snapshot, see :func:`open_engine`."""
    connection, views = open_engine(snapshot)
    views.define_all()
    return connection


def open_engine(
    snapshot: Snapshot, hashed: Collection[str] = (), file: DatabaseFile | None = None
) -> tuple[duckdb.DuckDBPyConnection, Views]:
    """Open a connection, and make the views over the snapshot that it can have.

    The connection reads the folders of the tables of the snapshot's runs, which hold no links: no
    other file, no network, no extension, no variable of the calling program.

    Parameters
    ----------
    snapshot
        What is read. A table's files are checked when its view is defined.
    hashed
        The runs whose files are read against their hashes then.
    file
        The file in which they are made; None for memory.
    """
    if file is None:
        connection = connect_in_memory()
    else:
        connection = hide_bar(
            duckdb.connect(file.path, config={"storage_compatibility_version": OLDEST_READER})
        )
    files = TableFiles(snapshot, hashed)
    # DuckDB may always use its folder for spilling, so that must be one that holds nothing else.
    connection.execute("set temp_directory = ?", [str(spill_folder() or "")])
    # the same SQL prints the same times everywhere
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set python_enable_replacements = false")
    folders = files.folders if file is None else _whole_paths(snapshot, files.folders)
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
        if file is None:
            return table_view(table, files.of_table(table.name), snapshot.format, given)
        found = _whole_paths(snapshot, files.of_table(table.name))
        kind: Relation = "table" if table.name in file.copied else "view"
        return table_view(table, found, snapshot.format, given, kind)

    definitions: dict[str, Callable[[], str]] = {
        table.name: partial(view_of, table) for table in TABLES
    }
    # From the manifests: a run has a row from its first moment on.
    rows = [run.row for run in snapshot.runs.values()]
    definitions[RUNS.name] = partial(rows_view, RUNS, rows, "view" if file is None else "table")
    return connection, Views(connection, definitions, snapshot.chosen, snapshot.format)


def _whole_paths(snapshot: Snapshot, paths: Collection[str]) -> list[str]:
    """Paths that mean the same wherever a program is started; addresses do anyway."""
    return [*paths] if snapshot.remote is not None else [os.path.abspath(each) for each in paths]  # noqa: PTH100  a file's name is a text here


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
    connection = connect_in_memory()
    if threads is not None:
        connection.execute(f"set threads = {threads}")
    if joins_as_written:
        connection.execute("set disabled_optimizers = 'join_order'")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set python_enable_replacements = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection
