"""Writing runs: a unit is staged, moved to its place, and counts when its manifest exists.

A run is complete when its first head exists, which names every unit's manifest by its hash.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import StoreError
from moedb.schemas.manifests import (
    FileEntry,
    HeadManifest,
    RunManifest,
    SegmentManifest,
    TableEntry,
)
from moedb.schemas.tables import MOE_LAYERS, RUNS, table
from moedb.store.array_metadata import METADATA
from moedb.store.arrays import (
    ArrayKey,
    Rows,
    array_forms,
    check_metadata,
    create_arrays,
    hash_of_metadata,
    metadata_files,
    missing_arrays,
    shard_files,
    write_rows,
)
from moedb.store.containment import check_file, check_folder, check_inside, check_tree, read_text
from moedb.store.files import (
    create_exclusively,
    make_directories,
    move_into,
    sha256_of_file,
    sha256_of_text,
    sync_directory,
    sync_file,
    sync_tree,
)
from moedb.store.layout import (
    ARRAYS,
    FINAL_UNIT,
    FIRST_UNIT,
    STAGED,
    RunLayout,
    unit_name,
)
from moedb.store.reading.committed import head_numbers
from moedb.store.reading.listing import visible_names
from moedb.store.reading.snapshot import RunSnapshot, check_files, read_run
from moedb.store.writing.parquet import Columns, arrow_table, column_lists, write_parquet
from moedb.store.writing.precision import rounded
from moedb.store.writing.removal import sweep_deleted
from moedb.store.writing.sweeping import sweep_run, sweep_store
from moedb.store.writing.writability import ensure_store


def timestamp() -> str:
    """Now, ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class RunWriter:
    """Writes one run. Any number of writers may work on it at once, in any number of processes.

    Parameters
    ----------
    store
        The store's folder; made if need be.
    manifest
        The run. If the store has it already, it is continued.
    """

    def __init__(self, store: Path, manifest: RunManifest) -> None:
        ensure_store(store)
        self.layout = RunLayout(store, manifest.run_id)
        check_tree(self.layout.folder)
        try:
            make_directories(self.layout.segments)
            create_exclusively(self.layout.manifest, manifest.to_json())
        except FileNotFoundError as error:
            raise self._deleted() from error
        self._configuration = self._read_configuration()
        self.manifest = self.snapshot().manifest
        # Whoever made these folders may have been stopped before their entries were durable.
        for folder in (self.layout.folder, self.layout.folder.parent, store):
            sync_directory(folder)
        with self._deletion_explained():
            self._create_arrays()
            self._metadata = metadata_files(self.manifest, self.layout.folder)

    def snapshot(self) -> RunSnapshot:
        """What is committed of the run now.

        Raises
        ------
        StoreError
            If the run was deleted, or is damaged.
        """
        with self._deletion_explained():
            found = read_run(self.layout.store, self.layout.run_id)
        self._check_there()
        return found

    def has_unit(self, unit: int) -> bool:
        """Whether a unit is committed by now, by whichever writer."""
        return self._has(unit_name(unit))

    def begin(self, tables: Mapping[str, Columns], at: str | None = None) -> None:
        """Commit the rows that describe the run as a whole: labels of the run and conditions.

        The table ``moe_layers`` is added from the run's manifest. ``at`` is when it was committed,
        if that was not now.
        """
        layers = column_lists(self.manifest.layers, MOE_LAYERS)
        self._commit(FIRST_UNIT, {**tables, MOE_LAYERS.name: layers}, {}, 0, at)

    def commit_unit(
        self,
        unit: int,
        tables: Mapping[str, Columns],
        arrays: Mapping[ArrayKey, Rows],
        at: str | None = None,
    ) -> bool:
        """Write and commit a unit.

        Parameters
        ----------
        unit
            The unit's number.
        tables
            For each table the unit's rows, without ``run_id``.
        arrays
            For each array the unit's rows, from its first row on.
        at
            When it was committed, if that was not now.

        Returns
        -------
        bool
            False if another writer had committed the unit; then nothing of this call is seen.
        """
        return self._commit(unit_name(unit), tables, arrays, unit * self.manifest.unit_rows, at)

    def finish(self, at: str | None = None) -> None:
        """Commit the run's row of ``runs``, write its head, and remove what no manifest names.

        ``at`` is when the run was finished, if that was not now.

        Raises
        ------
        StoreError
            If units are missing, or files of committed ones, or the run was deleted.
        """
        with self._deletion_explained():
            snapshot = self.snapshot()
            if snapshot.missing_units:
                raise StoreError(f"run {snapshot.run_id} lacks the units {snapshot.missing_units}")
            check_files(snapshot)
            if not snapshot.is_complete:
                check_metadata(snapshot)
                at = at or timestamp()
                row = {**snapshot.row, "status": "complete", "finished_at": at}
                self._commit(FINAL_UNIT, {RUNS.name: column_lists([row], RUNS)}, {}, 0, at)
                self._write_first_head()
            self._remove_orphans()
        sweep_deleted(self.layout.store)
        sweep_store(self.layout.store)

    def _has(self, unit: str) -> bool:
        """Whether a unit is committed; in a complete run every one is."""
        return self.layout.segment(unit).exists() or self._has_head()

    def _has_head(self) -> bool:
        return check_folder(self.layout.heads) and bool(
            head_numbers(visible_names(self.layout.heads))
        )

    def _write_first_head(self) -> None:
        """Say what the run consists of, which makes it complete."""
        with self._locked():
            snapshot = self.snapshot()
            if snapshot.is_complete:
                return
            folder = self.layout.folder
            units = [self.layout.segment(unit) for unit in sorted(snapshot.segments)]
            head = HeadManifest(
                run_id=snapshot.run_id,
                path=self.layout.relative(self.layout.head(0)),
                number=0,
                written_at=timestamp(),
                finished_at=snapshot.segments[FINAL_UNIT].committed_at,
                run_sha256=self._run_sha256,
                metadata=self._metadata,
                segments=tuple(file_entry(folder, self.layout.relative(path)) for path in units),
            )
            make_directories(self.layout.heads)
            create_exclusively(self.layout.head(0), head.to_json())

    @property
    def _run_sha256(self) -> str:
        if self._configuration is None:
            raise self._deleted()
        return sha256_of_text(self._configuration)

    def _read_configuration(self) -> str | None:
        try:
            return read_text(self.layout.manifest)
        except OSError:
            return None

    def _check_there(self) -> None:
        """Check that the run is the one that this writer began with."""
        if self._configuration is None or self._read_configuration() != self._configuration:
            raise self._deleted()

    def _deleted(self) -> StoreError:
        return StoreError(
            f"run {self.layout.run_id} was deleted while it was being written",
            "the same command captures it again",
        )

    @contextmanager
    def _deletion_explained(self) -> Iterator[None]:
        """Say of whatever goes wrong after the run was deleted that this is why."""
        try:
            yield
        except Exception:
            self._check_there()
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the run's lock, which keeps others from committing and from deleting the run."""
        self._check_there()
        check_file(self.layout.lock)
        with FileLock(self.layout.lock):
            try:
                self._check_there()
            except StoreError:
                if not os.path.lexists(self.layout.manifest):  # taking the lock made it anew
                    self.layout.lock.unlink(missing_ok=True)
                raise
            yield

    def _create_arrays(self) -> None:
        """Make the arrays that are not there; those of a run that was made half are completed."""
        forms = array_forms(self.manifest)
        if not missing_arrays(self.layout.arrays, forms):
            return
        with self._staging() as folder:
            self._create_arrays_in(folder)
            sync_tree(folder / ARRAYS)
            with self._locked():
                missing = missing_arrays(self.layout.arrays, forms)
                if missing and not self.layout.arrays.exists():
                    (folder / ARRAYS).rename(self.layout.arrays)
                    sync_directory(self.layout.folder)
                elif missing:
                    self._move_metadata(folder, missing)

    def _move_metadata(self, folder: Path, keys: Sequence[ArrayKey]) -> None:
        """Put the metadata of arrays, and of the groups that they are in, to their places."""
        groups = ("", *sorted({key.name for key in keys}))
        places = [Path(ARRAYS) / group / METADATA for group in groups]
        places += [Path(ARRAYS) / key.path / METADATA for key in keys]
        move_into(self.layout.folder, {str(place): folder / place for place in places})

    def _create_arrays_in(self, folder: Path) -> None:
        attributes = {"run_id": self.manifest.run_id, "model": self.manifest.row["model"]}
        create_arrays(folder / ARRAYS, array_forms(self.manifest), attributes)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a folder of this writer's own; its lock says that the writer is alive."""
        folder = self.layout.staging / f"{os.getpid()}-{secrets.token_hex(6)}"
        self.layout.staging.mkdir(parents=True, exist_ok=True)
        lock = _staging_lock(folder)
        with lock:
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
                self._remove_stub()

    def _remove_stub(self) -> None:
        """Remove the folders that staging made anew where the run was deleted meanwhile."""
        if os.path.lexists(self.layout.manifest):
            return
        with suppress(OSError):
            self.layout.staging.rmdir()
        with suppress(OSError):
            self.layout.folder.rmdir()

    def _commit(
        self,
        unit: str,
        tables: Mapping[str, Columns],
        arrays: Mapping[ArrayKey, Rows],
        first_row: int,
        at: str | None = None,
    ) -> bool:
        if self._has(unit):
            return False
        with self._deletion_explained(), self._staging() as folder:
            entries = self._stage_tables(folder, unit, tables)
            shards = self._stage_arrays(folder, first_row, arrays)
            with self._locked():
                if self._has(unit):
                    return False
                files = [entry.file.path for found in entries.values() for entry in found]
                files += [shard.path for shard in shards]
                for file in files:
                    check_inside(self.layout.folder, file)
                move_into(self.layout.folder, {file: folder / file for file in files})
                place = self.layout.segment(unit)
                segment = SegmentManifest(
                    unit=unit,
                    committed_at=at or timestamp(),
                    tables=entries,
                    shards=tuple(shards),
                    run_id=self.manifest.run_id,
                    path=self.layout.relative(place),
                    run_sha256=self._run_sha256,
                    arrays_sha256=hash_of_metadata(self._metadata),
                    metadata=self._metadata if unit == FIRST_UNIT else (),
                )
                return create_exclusively(place, segment.to_json())

    def _stage_tables(
        self, folder: Path, unit: str, tables: Mapping[str, Columns]
    ) -> dict[str, tuple[TableEntry, ...]]:
        entries: dict[str, tuple[TableEntry, ...]] = {}
        attempt = secrets.token_hex(4)
        for name, columns in tables.items():
            rows, bits = rounded(
                arrow_table(table(name), self.manifest.run_id, columns),
                table(name),
                self.manifest.row["dtype"],
            )
            relative = f"tables/{name}/{unit}-{attempt}.parquet"
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, table(name), rows)
            sync_file(path)
            entries[name] = (TableEntry(file_entry(folder, relative), len(rows), bits),)
        return entries

    def _stage_arrays(
        self, folder: Path, first_row: int, arrays: Mapping[ArrayKey, Rows]
    ) -> list[FileEntry]:
        if not arrays:
            return []
        staged = folder / ARRAYS
        self._create_arrays_in(folder)
        write_rows(staged, first_row, arrays)
        shards = shard_files(staged)
        for path in shards:
            sync_file(path)
        return [file_entry(folder, path.relative_to(folder).as_posix()) for path in shards]

    def _remove_orphans(self) -> None:
        """Delete files that writers left when they were stopped: nothing names them."""
        with self._locked():
            check_tree(self.layout.folder)
            sweep_run(self.snapshot())
            self._sweep_staging()

    def _sweep_staging(self) -> None:
        """Delete what dead writers staged; the folders of those at work are locked."""
        staging = self.layout.staging
        if not staging.is_dir():
            return
        names = {entry.name.removesuffix(".lock") for entry in staging.iterdir()}
        for folder in (staging / name for name in names if STAGED.fullmatch(name)):
            lock = _staging_lock(folder)
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):
            staging.rmdir()


def _staging_lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def file_entry(folder: Path, relative: str) -> FileEntry:
    """The entry of a file at a path within ``folder``."""
    path = folder / relative
    return FileEntry(relative, path.stat().st_size, sha256_of_file(path))
