"""One run, all of it: manifests, files, arrays, values."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from moedb.errors import FaultsError, StoreDamagedError
from moedb.schemas.arrays import ARRAY_NAMES
from moedb.schemas.manifests import SEALED_SINCE, FileEntry
from moedb.schemas.tables import TABLES
from moedb.store.arrays.stored import (
    ArrayKey,
    changed_metadata,
    hash_of_metadata,
    metadata_files,
    open_array,
)
from moedb.store.layout import ARRAYS
from moedb.store.reading.footers import damaged_footers, row_counts
from moedb.store.reading.places.remote_store import fetch_metadata
from moedb.store.reading.snapshot import (
    DamagedRun,
    RunSnapshot,
    Snapshot,
    check_sum,
    of_run,
    read_what_is_sound,
)
from moedb.store.verification.values import check_values


class Progress(Protocol):
    """Hears how far the files of a run are read."""

    def begin(self, n_files: int, n_bytes: int) -> None:
        """So much of a run will be read."""

    def advance(self, n_bytes: int) -> None:
        """So much more is."""


@dataclass(frozen=True)
class Verification:
    """What was checked of a run that was found sound."""

    n_files: int
    n_bytes: int
    n_decisions: int
    n_layers_summed: int

    def __str__(self) -> str:
        return (
            f"sound: {self.n_files} files ({self.n_bytes / 1e6:,.1f} MB), "
            f"{self.n_decisions:,} decisions, "
            f"expert outputs added up at {self.n_layers_summed} layers"
        )


def verify(snapshot: Snapshot, run_id: str, progress: Progress | None = None) -> Verification:
    """Check a run of a snapshot, one too that the snapshot keeps apart because it is damaged.

    A run on object storage is read there, its files several at a time, and nothing is written but
    manifests and the arrays' metadata, to the folder of the snapshot.

    Parameters
    ----------
    snapshot
        The snapshot.
    run_id
        The run, by its whole name.
    progress
        Hears how far its files are read.

    Raises
    ------
    FaultsError
        If anything is wrong; it names all that can be named.
    StoreError
        If object storage cannot be reached.
    """
    if run_id in snapshot.runs:
        return verify_run(snapshot.runs[run_id], progress)
    raise FaultsError(_faults_of_damaged(snapshot, snapshot.damaged[run_id], progress))


def verify_run(run: RunSnapshot, progress: Progress | None = None) -> Verification:
    """Read everything that is committed of a run, and check it.

    Raises
    ------
    FaultsError
        If anything is wrong; it names each file with its unit, or the layer and the gap.
    StoreError
        If object storage cannot be reached.
    """
    faults = _faults_of_files(run, progress)
    n_layers = 0
    if not faults:
        n_layers, faults = check_values(run)
    if faults:
        raise FaultsError(faults)
    n_files = sum(1 for _ in run.entries())
    return Verification(n_files, run.n_bytes(), run.n_rows("routing"), n_layers)


def _faults_of_damaged(
    snapshot: Snapshot, damaged: DamagedRun, progress: Progress | None
) -> list[StoreDamagedError]:
    """What is wrong with a run that cannot be opened: of its manifests, and of what is named."""
    run, faults = read_what_is_sound(snapshot.store, damaged.run_id, snapshot.remote)
    if run is not None:
        faults += _faults_of_files(run, progress)
    # such as a manifest that is missing: no file tells
    return faults or [damaged.error]


def _faults_of_files(run: RunSnapshot, progress: Progress | None) -> list[StoreDamagedError]:
    """What is wrong with a run, its values aside."""
    faults = [
        _damaged(run, f"{path} is no manifest of it, or a broken one", "remove that file")
        for path in run.strays
    ]
    of_metadata = [] if run.format < SEALED_SINCE else list(_faults_of_metadata(run))
    wrong = dict(_faults_of_bytes(run, progress))
    of_tables = _faults_of_tables(run, set(wrong))
    of_arrays = [] if of_metadata else list(_faults_of_arrays(run, set(wrong)))
    return [*faults, *of_metadata, *wrong.values(), *of_tables, *of_arrays]


def _faults_of_metadata(run: RunSnapshot) -> Iterator[StoreDamagedError]:
    """Whether the arrays' metadata are those that every unit was written with."""
    try:
        if run.remote is not None:
            fetch_metadata(run.remote, run.run_id, _array_keys(run))
        changed = [
            _damaged(run, f"{path} is not what the run was written with")
            for path in changed_metadata(run)
        ]
        found = hash_of_metadata(metadata_files(run.manifest, run.layout.folder))
    except FileNotFoundError as error:
        yield _damaged(run, f"{error.filename} is missing")
        return
    except StoreDamagedError as error:
        yield _damaged(run, error.message)
        return
    yield from changed
    for unit, segment in sorted(run.segments.items()):
        if segment.arrays_sha256 != found and not changed:
            yield _damaged(
                run,
                f"the metadata in {run.layout.arrays} are not those that the unit {unit} was "
                "written with",
            )


def _array_keys(run: RunSnapshot) -> list[str]:
    return [f"{name}/{layer}" for name, layers in run.manifest.arrays.items() for layer in layers]


def _faults_of_bytes(
    run: RunSnapshot, progress: Progress | None
) -> Iterator[tuple[str, StoreDamagedError]]:
    """The committed files that are not what was committed, each with what is wrong."""
    units = {entry.path: unit for unit, entry in run.entries()}
    entries: dict[str, FileEntry] = {entry.path: entry for _, entry in run.entries()}
    for entry, error in run.place.faults_among(list(entries.values())):
        del entries[entry.path]
        yield entry.path, _damaged(run, f"unit {units[entry.path]}: {error.message}")
    if progress is not None:
        progress.begin(len(entries), sum(entry.n_bytes for entry in entries.values()))

    def wrong_with(entry: FileEntry) -> StoreDamagedError | None:
        try:
            check_sum(run, units[entry.path], entry)
        except StoreDamagedError as error:
            return error
        except OSError as error:
            place = f"{run.place.root}/{entry.path}"
            said = error.strerror or "it is gone"
            return _damaged(run, f"unit {units[entry.path]}: cannot read {place}: {said}")
        finally:
            if progress is not None:
                progress.advance(entry.n_bytes)
        return None

    found = _each(wrong_with, entries.values(), run.place.n_readers)
    for path, fault in zip(entries, found, strict=True):
        if fault is not None:
            yield path, fault


def _each(
    work: Callable[[FileEntry], StoreDamagedError | None],
    entries: Iterable[FileEntry],
    n_at_once: int,
) -> list[StoreDamagedError | None]:
    """What is found of each file, some at a time."""
    if n_at_once == 1:  # so that Ctrl-C ends it at once
        return [work(entry) for entry in entries]
    pool = ThreadPoolExecutor(n_at_once)
    try:
        return list(pool.map(work, entries))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _faults_of_tables(run: RunSnapshot, wrong: set[str]) -> list[StoreDamagedError]:
    """Files, other than the ``wrong`` ones, that lack columns, or rows of those committed."""
    root = run.place.root
    elsewhere = None if run.remote is None else run.remote.file_system
    expected = {
        f"{root}/{entry.path}": (unit, table, entry.n_rows)
        for unit, segment in sorted(run.segments.items())
        for table, entries in segment.tables.items()
        for entry in entries
        if entry.path not in wrong
    }
    files = {
        table: [path for path, (_, name, _) in expected.items() if name == table.name]
        for table in TABLES
    }
    broken = damaged_footers(files, run.format, elsewhere)
    faults = [
        _damaged(run, f"unit {expected[path][0]}: {error.message}")
        for path, error in broken.items()
    ]
    try:
        counts = row_counts((path for path in expected if path not in broken), elsewhere)
    except StoreDamagedError as error:
        return [*faults, _damaged(run, error.message)]
    for path, counted in counts.items():
        unit, _, n_rows = expected[path]
        if counted != n_rows:
            what = f"unit {unit}: {path} has {counted:,} rows, not {n_rows:,}"
            faults.append(_damaged(run, what))
    return faults


def _faults_of_arrays(run: RunSnapshot, wrong: set[str]) -> Iterator[StoreDamagedError]:
    """Arrays, other than those of the ``wrong`` files, that cannot be opened."""
    for name, layers in run.manifest.arrays.items():
        for layer in layers if name in ARRAY_NAMES else ():
            key = ArrayKey(name, layer)
            if any(path.startswith(f"{ARRAYS}/{key.path}/") for path in wrong):
                continue
            try:
                open_array(run, key)
            except StoreDamagedError as error:
                yield error


def _damaged(run: RunSnapshot, what: str, hint: str | None = None) -> StoreDamagedError:
    return of_run(run, StoreDamagedError(what, hint))
