"""One run, all of it: manifests, files, arrays, values."""

from collections.abc import Iterator
from dataclasses import dataclass

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
from moedb.store.reading.committed_files import faults_among
from moedb.store.reading.footers import damaged_footers, row_counts
from moedb.store.reading.snapshot import (
    DamagedRun,
    RunSnapshot,
    Snapshot,
    check_sum,
    read_what_is_sound,
)
from moedb.store.verification.values import check_values


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


def verify(snapshot: Snapshot, run_id: str) -> Verification:
    """Check a run of a snapshot, one too that the snapshot keeps apart because it is damaged.

    Parameters
    ----------
    snapshot
        The snapshot.
    run_id
        The run, by its whole name.

    Raises
    ------
    FaultsError
        If anything is wrong; it names all that can be named.
    """
    if run_id in snapshot.runs:
        return verify_run(snapshot.runs[run_id])
    raise FaultsError(_faults_of_damaged(snapshot, snapshot.damaged[run_id]))


def verify_run(run: RunSnapshot) -> Verification:
    """Read everything that is committed of a run, and check it.

    Raises
    ------
    FaultsError
        If anything is wrong; it names each file with its unit, or the layer and the gap.
    """
    faults = _faults_of_files(run)
    n_layers = 0
    if not faults:
        n_layers, faults = check_values(run)
    if faults:
        raise FaultsError(faults)
    n_files = sum(1 for _ in run.entries())
    return Verification(n_files, run.n_bytes(), run.n_rows("routing"), n_layers)


def _faults_of_damaged(snapshot: Snapshot, damaged: DamagedRun) -> list[StoreDamagedError]:
    """What is wrong with a run that cannot be opened: of its manifests, and of what is named."""
    run, faults = read_what_is_sound(snapshot.store, damaged.run_id)
    if run is not None:
        faults += _faults_of_files(run)
    # such as a manifest that is missing: no file tells
    return faults or [damaged.error]


def _faults_of_files(run: RunSnapshot) -> list[StoreDamagedError]:
    """What is wrong with a run, its values aside."""
    faults = [
        _damaged(run, f"{path} is no manifest of it, or a broken one", "remove that file")
        for path in run.strays
    ]
    of_metadata = [] if run.format < SEALED_SINCE else list(_faults_of_metadata(run))
    wrong = dict(_faults_of_bytes(run))
    of_tables = _faults_of_tables(run, set(wrong))
    of_arrays = [] if of_metadata else list(_faults_of_arrays(run, set(wrong)))
    return [*faults, *of_metadata, *wrong.values(), *of_tables, *of_arrays]


def _faults_of_metadata(run: RunSnapshot) -> Iterator[StoreDamagedError]:
    """Whether the arrays' metadata are those that every unit was written with."""
    try:
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


def _faults_of_bytes(run: RunSnapshot) -> Iterator[tuple[str, StoreDamagedError]]:
    """The committed files that are not what was committed, each with what is wrong."""
    units = {entry.path: unit for unit, entry in run.entries()}
    entries: dict[str, FileEntry] = {entry.path: entry for _, entry in run.entries()}
    for entry, error in faults_among(run.layout.folder, list(entries.values())):
        del entries[entry.path]
        yield entry.path, _damaged(run, f"unit {units[entry.path]}: {error.message}")
    for entry in entries.values():
        try:
            check_sum(run, units[entry.path], entry)
        except StoreDamagedError as error:
            yield entry.path, error
        except OSError as error:
            path = run.layout.folder / entry.path
            what = f"unit {units[entry.path]}: cannot read {path}: {error.strerror}"
            yield entry.path, _damaged(run, what)


def _faults_of_tables(run: RunSnapshot, wrong: set[str]) -> list[StoreDamagedError]:
    """Files, other than the ``wrong`` ones, that lack columns, or rows of those committed."""
    folder = run.layout.folder
    expected = {
        folder / entry.path: (unit, table, entry.n_rows)
        for unit, segment in sorted(run.segments.items())
        for table, entries in segment.tables.items()
        for entry in entries
        if entry.path not in wrong
    }
    files = {
        table: [path for path, (_, name, _) in expected.items() if name == table.name]
        for table in TABLES
    }
    broken = damaged_footers(files, run.format)
    faults = [
        _damaged(run, f"unit {expected[path][0]}: {error.message}")
        for path, error in broken.items()
    ]
    try:
        counts = row_counts(path for path in expected if path not in broken)
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
            if any(path.startswith(f"{run.layout.arrays.name}/{key.path}/") for path in wrong):
                continue
            try:
                open_array(run, key)
            except StoreDamagedError as error:
                yield error


def _damaged(run: RunSnapshot, what: str, hint: str | None = None) -> StoreDamagedError:
    restore = f"restore it, or remove the run: moedb rm {run.run_id}"
    return StoreDamagedError(f"run {run.run_id}: {what}", hint or restore)
