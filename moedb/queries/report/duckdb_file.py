"""A file of DuckDB with some runs of a store, for programs that know DuckDB and not moedb."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.counting.engine import errors_explained
from moedb.queries.database import Database
from moedb.queries.guidance.many_runs import several_runs
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.macros import create_macros
from moedb.queries.questions.view_file import described_views
from moedb.queries.reading.references import references
from moedb.queries.results.export import write_with_sidecar
from moedb.queries.results.files import check_folder
from moedb.queries.results.result import Provenance, RunReference
from moedb.schemas.formats import DUCKDB, DUCKDB_ENDINGS
from moedb.schemas.tables import RUNS, TABLES
from moedb.schemas.version import __version__
from moedb.store.engine.connection import DatabaseFile, open_engine
from moedb.store.engine.execution import run_interruptibly
from moedb.store.engine.quoting import literal, quoted
from moedb.store.reading.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb

COPIED_BYTES = 1 << 25
"""Tables whose files are no larger than that together are copied."""

PROVENANCE = "provenance"
"""The table that says where the rest is from."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class DuckdbFile:
    """What was written.

    Attributes
    ----------
    paths
        The file, and its sidecar.
    runs
        The runs in it.
    in_place
        The tables whose rows stay in the store, where the file's views read them.
    """

    paths: list[Path]
    runs: tuple[RunReference, ...]
    in_place: tuple[str, ...]


def write_duckdb(
    database: Database,
    path: str | Path,
    run: "str | Iterable[str] | None" = None,
    *,
    copy: bool = False,
    copied_bytes: int = COPIED_BYTES,
) -> DuckdbFile:
    """Write a file of DuckDB with the tables, views and macros of some runs.

    It appears whole or not at all, with a sidecar beside it. Any DuckDB from 1.5 on opens it,
    without moedb; 1.4 knows its tables and views. Named queries are table macros, whose ``run`` is
    the newest complete run of the file unless given. The table ``provenance`` has a row for each
    run. Functions that read arrays are not in it.

    Parameters
    ----------
    database
        The store.
    path
        The file.
    run
        The runs, as in :meth:`Database.query_runs`; None for every complete one.
    copy
        Whether all rows are copied. Without, large tables are views over the files of the store,
        which has to stay where it is.
    copied_bytes
        How large the files of a table may be together for it to be copied without that.

    Raises
    ------
    UsageError
        If the file is not named as one of DuckDB, cannot be written, or its views would read a
        store that is not on a disk.
    RunNotFoundError
        If there is no such run, or none is complete.
    StoreError
        If a file of the store is damaged or gone.
    """
    path = Path(path)
    _check_ending(path)
    check_folder(path)
    _check_no_log(path)
    snapshot = _chosen(database.snapshot, run)
    n_bytes = {
        table.name: sum(
            entry.n_bytes
            for each in snapshot.runs.values()
            for _, entry in each.table_entries(table.name)
        )
        for table in TABLES
    }
    copied = [name for name, size in n_bytes.items() if copy or size <= copied_bytes]
    in_place = tuple(name for name in n_bytes if name not in copied)
    if in_place and snapshot.remote is not None:
        raise UsageError(
            f"{path.name} would read {', '.join(in_place)} from {snapshot.title}, which DuckDB "
            "alone does not reach as moedb does",
            "copy all rows into it: --copy",
        )
    with closing(Database(snapshot)) as reader:
        runs = references(snapshot, sorted(snapshot.runs), lambda: reader.split_sizes)
    staged = Path(tempfile.mkdtemp(prefix=".moedb-duckdb-", dir=path.parent))
    try:
        new = DatabaseFile(staged / "new.duckdb", copied)
        n_rows = _fill(new, snapshot, runs)
        kinds = {
            name: {"kind": "table" if name in copied else "view", "n_rows": n_rows[name]}
            for name in n_bytes
        }
        paths = write_with_sidecar(
            path,
            _pieces(new.path),
            lambda: _provenance(snapshot, runs),
            lambda: {"format": DUCKDB, "tables": kinds},
        )
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return DuckdbFile(paths, runs, in_place)


def _check_ending(path: Path) -> None:
    """What opens a file by its name would take it for a table, or for a text."""
    if path.suffix.lower() not in DUCKDB_ENDINGS:
        raise UsageError(
            f"{path.name}: the name of a database of DuckDB ends in {', '.join(DUCKDB_ENDINGS)}",
            f"-o {path.stem}.duckdb; a table is written by: moedb export NAME -o FILE.tex",
        )


def _check_no_log(path: Path) -> None:
    """DuckDB would play the log of the file that was there into the new one."""
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        raise UsageError(
            f"{log} is beside {path.name}: a program that writes to the file is at work, or was "
            "stopped",
            "close that program, or name another file",
        )


def _chosen(snapshot: Snapshot, run: "str | Iterable[str] | None") -> Snapshot:
    """The runs that are meant; the newest complete one is the default of macros."""
    if run is None:
        run_ids = [each.run_id for each in snapshot.runs.values() if each.is_complete]
        if not run_ids:
            raise RunNotFoundError(f"no run in {snapshot.title} is complete", "moedb runs")
    else:
        run_ids = several_runs(snapshot, run)
    chosen = snapshot.only(*run_ids)
    newest = next(iter(chosen.complete_runs()), chosen.runs[run_ids[0]])
    return snapshot.only(newest.run_id, *(each for each in run_ids if each != newest.run_id))


def _fill(file: DatabaseFile, snapshot: Snapshot, runs: tuple[RunReference, ...]) -> dict[str, int]:
    """Make everything in the file; return how many rows each table has."""
    with errors_explained():
        connection, views = open_engine(snapshot, file=file)
        with closing(connection):
            # one for all: each of several hundred would wait for the disk
            connection.begin()
            run_interruptibly(connection, views.define_all)
            stored = {run.run_id for run in runs}
            names = {run.name: run.run_id for run in runs if run.name and run.name not in stored}
            create_macros(connection, run_names=names)
            _say_where_from(connection, snapshot, runs)
            _comment(connection, file)
            connection.commit()
            counts = " union all ".join(
                f"select {literal(table.name)}, count(*) from {table.name}"  # noqa: S608
                for table in TABLES
            )
            return dict(run_interruptibly(connection, lambda: connection.sql(counts).fetchall()))


def _say_where_from(
    connection: "duckdb.DuckDBPyConnection", snapshot: Snapshot, runs: tuple[RunReference, ...]
) -> None:
    columns = ("run_id", "name", "status", "job", "model", "model_sha256", "dataset")
    more = {
        "store": str(snapshot.store.absolute()) if snapshot.remote is None else snapshot.title,
        "snapshot": snapshot.sha256,
        "moedb_version": __version__,
    }
    declared = ", ".join(f"{name} varchar" for name in (*columns, *more))
    connection.execute(f"create table {PROVENANCE} ({declared})")
    marks = ", ".join("?" for _ in (*columns, *more))
    for run in runs:
        row = [*(getattr(run, name) for name in columns), *more.values()]
        connection.execute(f"insert into {PROVENANCE} values ({marks})", row)  # noqa: S608


def _comment(connection: "duckdb.DuckDBPyConnection", file: DatabaseFile) -> None:
    """Put what `moedb schema` says of each relation and column beside it."""

    def say(what: str, text: str) -> None:
        connection.execute(f"comment on {what} is {literal(text)}")

    for table in TABLES:
        is_copied = table is RUNS or table.name in file.copied
        say(f"{'table' if is_copied else 'view'} {table.name}", f"one row is {table.holds}")
        for column in table.columns:
            say(f"column {table.name}.{quoted(column.name)}", column.doc)
    for view in described_views().values():
        say(f"view {view.name}", view.answers)
        for each in view.columns:
            say(f"column {view.name}.{quoted(each.name)}", each.doc)
    for query in catalog().values():
        say(f"macro table {query.macro_name}", query.answers)
    say(f"table {PROVENANCE}", "the runs in this file, and what was read of them by what")


def _provenance(snapshot: Snapshot, runs: tuple[RunReference, ...]) -> Provenance:
    said = "-- a file of DuckDB with the tables, views and macros of these runs"
    return Provenance(None, said, {}, runs, snapshot.sha256, __version__)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def is_current(database: Database, told: Mapping[str, Any]) -> bool:
    """Whether the store has of the runs of a file what it had when the file was written.

    Raises
    ------
    RunNotFoundError
        If one of them is gone.
    """
    run_ids = [str(run["run_id"]) for run in told["runs"]]
    return database.snapshot.only(*run_ids).sha256 == told.get("snapshot")
