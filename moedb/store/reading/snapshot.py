"""A consistent view of a store: the manifests, read once."""

import gc
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from moedb.errors import RunNotFoundError, StoreDamagedError, did_you_mean
from moedb.schemas.manifests import (
    SEALED_SINCE,
    FileEntry,
    HeadManifest,
    RunManifest,
    SegmentManifest,
)
from moedb.schemas.run_names import RunName, title_of
from moedb.schemas.tables import FORMAT_MAJOR, RUNS, TABLES
from moedb.store.containment import check_folder, read_text
from moedb.store.files import sha256_of_json
from moedb.store.layout import FINAL_UNIT, FIRST_UNIT, RunLayout, runs_folder, unit_name
from moedb.store.reading.committed import read_committed
from moedb.store.reading.footers import damaged_footers
from moedb.store.reading.listing import check_store, run_names
from moedb.store.reading.naming import read_name
from moedb.store.reading.places.local import LocalPlace
from moedb.store.reading.places.place import Place
from moedb.store.reading.places.remote_place import RemotePlace
from moedb.store.reading.places.remote_store import RemoteStore

LOOKED_AT = 256
"""Of how many files of tables the sizes and the footers are looked at when a store is opened; those
of larger runs are when they are asked."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSnapshot:
    """One run as it was when the snapshot was taken: what is committed, and nothing else.

    Attributes
    ----------
    layout, manifest
        Where it is, and its configuration.
    segments
        The manifests that count, by unit.
    format
        The major version of its store's format.
    head
        What makes it complete; None where nothing does, and in format 1.
    strays
        Files among its manifests that are none of its own.
    table_folders
        The folders in the run's that hold the files of its tables, and no links.
    named
        What its user calls it.
    remote
        The store on object storage that it is in; None for one in a folder.
    """

    layout: RunLayout
    manifest: RunManifest
    segments: dict[str, SegmentManifest]
    format: int = FORMAT_MAJOR
    head: HeadManifest | None = None
    strays: tuple[Path, ...] = ()
    table_folders: tuple[str, ...] = ()
    named: RunName = field(default_factory=RunName)
    remote: RemoteStore | None = None

    @cached_property
    def place(self) -> Place:
        """Where its committed files are."""
        if self.remote is not None:
            return RemotePlace(self.remote, self.run_id)
        return LocalPlace(self.layout.folder)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.manifest.run_id

    @property
    def title(self) -> str:
        """What a message calls it: the name that was given to it, and the one it is stored as."""
        return title_of(self.run_id, self.named.name)

    @property
    def is_complete(self) -> bool:
        """Whether every unit is committed, and the run ended."""
        if self.format < SEALED_SINCE:
            return FINAL_UNIT in self.segments
        return self.head is not None

    @property
    def missing_units(self) -> list[int]:
        """Numbers of the units that are not committed yet."""
        if self.head is not None:
            return []
        planned = range(len(self.manifest.units))
        return [unit for unit in planned if unit_name(unit) not in self.segments]

    @property
    def row(self) -> dict[str, Any]:
        """The run's row of the table ``runs``."""
        derived = {
            "run_id": self.run_id,
            "status": "complete" if self.is_complete else "incomplete",
            "finished_at": self._finished_at,
        }
        return {name: derived.get(name, self.manifest.row.get(name)) for name in RUNS.column_names}

    @property
    def _finished_at(self) -> str | None:
        if not self.is_complete:
            return None
        return self.head.finished_at if self.head else self.segments[FINAL_UNIT].committed_at

    def files(self, table: str) -> list[Path]:
        """The committed Parquet files of a table, in the order of the units."""
        return [Path(name) for name in self.file_names(table)]

    def file_names(self, table: str) -> list[str]:
        """The same as texts; making paths of a hundred thousand takes a second."""
        root = self.place.root
        return [
            f"{root}/{entry.path}"
            for _, segment in sorted(self.segments.items())
            for entry in segment.tables.get(table, ())
        ]

    def table_files(self) -> Iterator[FileEntry]:
        """The committed Parquet files of all tables."""
        for _, segment in sorted(self.segments.items()):
            for entries in segment.tables.values():
                for entry in entries:
                    yield entry.file

    def table_entries(self, table: str) -> Iterator[tuple[str, FileEntry]]:
        """The committed Parquet files of a table, with their units, in the order of these."""
        for unit, segment in sorted(self.segments.items()):
            for entry in segment.tables.get(table, ()):
                yield unit, entry.file

    def entries(self) -> Iterator[tuple[str, FileEntry]]:
        """Every committed file, with its unit."""
        for unit, segment in sorted(self.segments.items()):
            for entries in segment.tables.values():
                yield from ((unit, entry.file) for entry in entries)
            yield from ((unit, entry) for entry in segment.shards)

    def shards(self) -> Iterator[FileEntry]:
        """The committed files of the arrays."""
        for _, segment in sorted(self.segments.items()):
            yield from segment.shards

    @property
    def n_files(self) -> int:
        """How many Parquet files its tables are."""
        return sum(
            len(entries)
            for segment in self.segments.values()
            for entries in segment.tables.values()
        )

    def n_rows(self, table: str) -> int:
        """Committed rows of a table."""
        return sum(
            entry.n_rows
            for segment in self.segments.values()
            for entry in segment.tables.get(table, ())
        )

    def n_bytes(self) -> int:
        """Bytes of the committed files."""
        return sum(entry.n_bytes for entry in (*self.table_files(), *self.shards()))


@dataclass(frozen=True)
class DamagedRun:
    """A run that cannot be read.

    Attributes
    ----------
    run_id
        The run's name.
    error
        What is wrong with it.
    row
        Of its row of the table ``runs`` what is known: nothing where its configuration is damaged.
    """

    run_id: str
    error: StoreDamagedError
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """All runs of a store at one moment.

    Attributes
    ----------
    store
        The store's folder; of one on object storage that with its manifests.
    runs
        The runs that can be read, by name.
    damaged
        Those that cannot.
    chosen
        The default run, where one was named; else it is the newest complete one.
    remote
        The store on object storage; None for a folder.
    """

    store: Path
    runs: dict[str, RunSnapshot]
    damaged: dict[str, DamagedRun] = field(default_factory=dict)
    chosen: str | None = None
    remote: RemoteStore | None = None

    @property
    def title(self) -> str:
        """What messages call the store: its folder, or its address."""
        return str(self.store) if self.remote is None else self.remote.url

    @property
    def format(self) -> int:
        """The major version of the store's format."""
        return next((run.format for run in self.runs.values()), FORMAT_MAJOR)

    def only(self, *run_ids: str) -> "Snapshot":
        """Return the snapshot of some runs; the first is then the default, whatever its status."""
        runs = [self.run(run_id) for run_id in run_ids]
        return replace(
            self, runs={run.run_id: run for run in runs}, damaged={}, chosen=runs[0].run_id
        )

    def run(self, run_id: str) -> RunSnapshot:
        """Return a run by its name, the one given to it too, or an unambiguous beginning of one.

        Raises
        ------
        RunNotFoundError
            If there is none, or the beginning fits several.
        StoreDamagedError
            If the run is damaged.
        """
        name = self.whole_name(run_id)
        if name in self.damaged:
            error = self.damaged[name].error
            raise StoreDamagedError(error.message, error.hint)
        return self.runs[name]

    def whole_name(self, run_id: str) -> str:
        """The name of a run, damaged or not, that an unambiguous beginning stands for.

        Raises
        ------
        RunNotFoundError
            If there is none, or the beginning fits several.
        """
        stored = {*self.runs, *self.damaged}
        if run_id in stored:
            return run_id
        given = {run.run_id: run.named.name for run in self.runs.values() if run.named.name}
        called = [stored_as for stored_as, name in given.items() if name == run_id]
        begun = called or [
            name
            for name in stored
            if run_id and (name.startswith(run_id) or given.get(name, "").startswith(run_id))
        ]
        if len(begun) == 1:
            return begun[0]
        if begun:
            titles = sorted(self.runs[name].title if name in self.runs else name for name in begun)
            what = "the name" if called else "the beginning"
            raise RunNotFoundError(f"{run_id!r} is {what} of several runs: {', '.join(titles)}")
        known = {*stored, *given.values()}
        raise RunNotFoundError(
            f"no run named {run_id!r} in {self.title}; {did_you_mean(run_id, known)}",
            "moedb runs",
        )

    def called(self, run_id: str) -> str:
        """What a column calls a run: the name given to it, else that it is stored as."""
        return self.runs[run_id].named.name or run_id

    def newest_complete(self) -> RunSnapshot | None:
        """The complete run that was started last, if there is one.

        Runs made from another one, such as interventions on it, hold no routing of their own, so
        they are for those who name them.
        """
        if self.chosen is not None:
            return self.runs[self.chosen]
        return next(iter(self.complete_runs()), None)

    def complete_runs(self) -> list[RunSnapshot]:
        """The complete runs that were not made from another one, the newest first."""
        complete = (
            run
            for run in self.runs.values()
            if run.is_complete and run.row["parent_run_id"] is None
        )
        return sorted(complete, key=lambda run: (run.row["created_at"], run.run_id), reverse=True)

    def files(self, table: str) -> list[Path]:
        """The committed Parquet files of a table over all runs."""
        return [Path(name) for name in self.file_names(table)]

    def file_names(self, table: str) -> list[str]:
        """The same as texts."""
        return [name for _, run in sorted(self.runs.items()) for name in run.file_names(table)]

    @cached_property
    def sha256(self) -> str:
        """A hash over everything that is committed."""
        return sha256_of_json(
            [
                (
                    run_id,
                    unit,
                    sorted(e.sha256 for files in segment.tables.values() for e in files),
                )
                for run_id, run in sorted(self.runs.items())
                for unit, segment in sorted(run.segments.items())
            ]
        )


def read_run(store: Path, run_id: str) -> RunSnapshot:
    """Read the manifests of one run and check that the tables they name are there.

    Raises
    ------
    StoreNotFoundError, StoreVersionError
        If there is no store, or a newer one.
    StoreDamagedError
        If a manifest is malformed or changed, a committed file of a table is missing or cut short,
        or anything that is read is a link.
    """
    return _read_run(RunLayout(store, run_id), check_store(store))


def of_run(run: RunSnapshot, error: StoreDamagedError) -> StoreDamagedError:
    """What is wrong with a run, with its name, and what can be done."""
    return _of_run(run.run_id, error, run.remote)


def _of_run(
    run_id: str, error: StoreDamagedError, remote: RemoteStore | None = None
) -> StoreDamagedError:
    message, restore = error.message, f"restore it, or remove the run: moedb rm {run_id}"
    if remote is not None:
        message = remote.shown(message)
        restore = f"copy it there again, or delete what is at {remote.url}/runs/{run_id}"
    return StoreDamagedError(f"run {run_id}: {message}", error.hint or restore)


def _read_run(layout: RunLayout, major: int, remote: RemoteStore | None = None) -> RunSnapshot:
    try:
        if remote is not None and layout.run_id in remote.faults:
            raise remote.faults[layout.run_id]
        manifest, segments, head, strays = read_committed(layout, major)
        run = RunSnapshot(layout, manifest, segments, major, head, strays, remote=remote)
        paths = [
            entry.path
            for segment in segments.values()
            for entries in segment.tables.values()
            for entry in entries
        ]
        folders = run.place.check_present(paths)
        run = replace(run, table_folders=folders, named=read_name(layout))
        if len(paths) <= LOOKED_AT:
            run.place.check_whole(run.table_files())
        if run.is_complete and head is None and (run.missing_units or FIRST_UNIT not in segments):
            raise StoreDamagedError(
                f"it says it is complete but lacks manifests in {layout.segments}"
            )
    except StoreDamagedError as error:
        raise _of_run(layout.run_id, error, remote) from error
    return run


def read_what_is_sound(
    store: Path, run_id: str, remote: RemoteStore | None = None
) -> tuple[RunSnapshot | None, list[StoreDamagedError]]:
    """Read of a damaged run the manifests that are sound; no file is looked at.

    Returns
    -------
    tuple
        The run, None where its configuration or its head is damaged; and what is wrong with its
        manifests.
    """
    major = check_store(store)
    faults: list[StoreDamagedError] = []
    run = None
    try:
        if remote is not None and run_id in remote.faults:
            raise remote.faults[run_id]
        layout = _layout(store, run_id, remote)
        manifest, segments, head, strays = read_committed(layout, major, faults)
        run = RunSnapshot(layout, manifest, segments, major, head, strays, remote=remote)
    except StoreDamagedError as error:
        faults.append(error)
    return run, [_of_run(run_id, fault, remote) for fault in faults]


def _layout(store: Path, run_id: str, remote: RemoteStore | None) -> RunLayout:
    return RunLayout(store, run_id, f"{remote.url}/runs/{run_id}" if remote is not None else "")


def check_sum(run: RunSnapshot, unit: str, entry: FileEntry) -> None:
    """Check that a committed file holds the bytes that were committed, by reading it.

    Raises
    ------
    StoreDamagedError
        If it doesn't.
    """
    if run.place.sha256(entry.path) != entry.sha256:
        path = f"{run.place.root}/{entry.path}"
        raise of_run(run, StoreDamagedError(f"unit {unit}: {path} is not what was committed"))


def check_table(run: RunSnapshot, table: str) -> None:
    """Check that every committed file of a table is there, as long as it was, and no link.

    Raises
    ------
    StoreDamagedError
        If one isn't.
    """
    try:
        run.place.check_whole(entry for _, entry in run.table_entries(table))
    except StoreDamagedError as error:
        raise of_run(run, error) from error


def check_files(run: RunSnapshot) -> None:
    """Check that every committed file of a run is there, those of its arrays too.

    Raises
    ------
    StoreDamagedError
        If one is missing, cut short, or a link.
    """
    try:
        run.place.check_whole(run.table_files())
        run.place.check_whole(run.shards())
    except StoreDamagedError as error:
        raise of_run(run, error) from error


def take_snapshot(store: Path | RemoteStore) -> Snapshot:
    """Read the manifests of all runs of ``store``, once, and the footers of their tables.

    Parameters
    ----------
    store
        The store's folder, or one on object storage, of which no footers are read.

    Returns
    -------
    Snapshot
        Runs that are damaged are kept apart in it.

    Raises
    ------
    StoreError
        If the store itself is missing, damaged or newer than this moedb.
    """
    with _without_collection():
        if isinstance(store, RemoteStore):
            with store.addressed():
                return _take_snapshot(store.folder, store)
        return _take_snapshot(store)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from looking for circles among the entries of manifests again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # what was read lasts: among what is seldom looked through, without looking through it now
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _take_snapshot(store: Path, remote: RemoteStore | None = None) -> Snapshot:
    major = check_store(store)
    runs: dict[str, RunSnapshot] = {}
    damaged: dict[str, DamagedRun] = {}
    for run_id in run_names(store):
        try:
            runs[run_id] = _read_run(_layout(store, run_id, remote), major, remote)
        except StoreDamagedError as error:
            if os.path.lexists(RunLayout(store, run_id).folder):  # not deleted at this moment
                damaged[run_id] = DamagedRun(run_id, error, _known_row(store, run_id, major))
    if remote is not None:
        return Snapshot(store, runs, damaged, remote=remote)
    looked_at = list(_with_few_files(runs.values(), LOOKED_AT))
    files = {
        table: [name for run in looked_at for name in run.file_names(table.name)]
        for table in TABLES
    }
    for name, wrong in damaged_footers(files, major).items():
        run_id = Path(name).relative_to(runs_folder(store)).parts[0]
        run = runs.pop(run_id, None)
        if run is not None and os.path.lexists(run.layout.folder):
            damaged[run_id] = DamagedRun(run_id, _of_run(run_id, wrong), run.row)
    return Snapshot(store, runs, damaged)


def _with_few_files(runs: Iterable[RunSnapshot], limit: int) -> Iterator[RunSnapshot]:
    """The runs with the fewest files, as long as they have no more than ``limit`` together."""
    n_files = 0
    for n, run in sorted(((run.n_files, run) for run in runs), key=_first):
        n_files += n
        if n_files > limit and run.format >= SEALED_SINCE:
            return
        yield run


def _first(pair: tuple[int, RunSnapshot]) -> int:
    return pair[0]


def _known_row(store: Path, run_id: str, major: int) -> dict[str, Any]:
    layout = RunLayout(store, run_id)
    try:
        check_folder(layout.folder)
        return RunManifest.from_json(read_text(layout.manifest), str(layout.manifest), major).row
    except (OSError, StoreDamagedError):
        return {}


def warn_of_damage(snapshot: Snapshot) -> None:
    """Say in one line which runs are left out, and what is taken where none is named."""
    damaged = [snapshot.damaged[run_id] for run_id in sorted(snapshot.damaged)]
    if not damaged:
        return
    newest = snapshot.newest_complete()
    logger.warning(
        "damaged, and left out: %s (moedb verify checks all; %s)",
        "; ".join(run.error.message for run in damaged),
        f"the default run is {newest.run_id}" if newest else "no other run is complete",
    )
