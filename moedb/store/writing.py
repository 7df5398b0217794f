"""Writing runs: a unit is staged, moved to its place, and counts when its manifest exists."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import RunNotFoundError, StoreError, did_you_mean
from moedb.schemas.arrays import array_spec
from moedb.schemas.manifests import (
    FileEntry,
    RunManifest,
    SegmentManifest,
    StoreManifest,
    TableEntry,
)
from moedb.schemas.tables import MOE_LAYERS, RUNS, TABLE_NAMES, table
from moedb.store.arrays import (
    ArrayKey,
    Rows,
    create_arrays,
    row_shape,
    shard_files,
    write_rows,
)
from moedb.store.files import (
    create_exclusively,
    make_directories,
    move_durably,
    sha256_of_file,
    sync_directory,
    sync_file,
)
from moedb.store.layout import FINAL_UNIT, FIRST_UNIT, STORE_MANIFEST, RunLayout, unit_name
from moedb.store.parquet import Columns, arrow_table, column_lists, write_parquet
from moedb.store.snapshot import RunSnapshot, check_store, read_run, run_ids


def timestamp() -> str:
    """Now, ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def check_writable(store: Path) -> None:
    """Check that ``store`` is a store, or a new or empty folder that can become one.

    Raises
    ------
    StoreError
        If the folder holds something else, or is a store that cannot be read.
    """
    if (store / STORE_MANIFEST).exists():
        check_store(store)
    elif _holds_something_else(store):
        raise StoreError(
            f"{store} is neither empty nor a moedb store", "name another folder: --store DIR"
        )


def ensure_store(store: Path) -> None:
    """Make ``store`` a store if it is a new or empty folder; check it otherwise.

    Raises
    ------
    StoreError
        If the folder holds something else, or is a store that cannot be read.
    """
    check_writable(store)
    make_directories(store)
    create_exclusively(store / STORE_MANIFEST, StoreManifest().to_json())


def _holds_something_else(store: Path) -> bool:
    if not store.exists():
        return False
    if not store.is_dir():
        return True
    names = {entry.name for entry in store.iterdir()}
    # Another process may be making the store at this moment.
    return STORE_MANIFEST not in names and any(STORE_MANIFEST not in name for name in names)


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
        make_directories(self.layout.segments)
        create_exclusively(self.layout.manifest, manifest.to_json())
        self.manifest = self.snapshot().manifest
        self._create_arrays()

    def snapshot(self) -> RunSnapshot:
        """What is committed of the run now."""
        return read_run(self.layout.store, self.layout.run_id)

    def has_unit(self, unit: int) -> bool:
        """Whether a unit is committed by now, by whichever writer."""
        return self.layout.segment(unit_name(unit)).exists()

    def begin(self, tables: Mapping[str, Columns]) -> None:
        """Commit the rows that describe the run as a whole: labels of the run and conditions.

        The table ``moe_layers`` is added from the run's manifest.
        """
        layers = column_lists(self.manifest.layers, MOE_LAYERS)
        self._commit(FIRST_UNIT, {**tables, MOE_LAYERS.name: layers}, {}, 0)

    def commit_unit(
        self,
        unit: int,
        tables: Mapping[str, Columns],
        arrays: Mapping[ArrayKey, Rows],
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

        Returns
        -------
        bool
            False if another writer had committed the unit; then nothing of this call is seen.
        """
        return self._commit(unit_name(unit), tables, arrays, unit * self.manifest.unit_rows)

    def finish(self) -> None:
        """Commit the run's row of ``runs`` and remove what no manifest names.

        Raises
        ------
        StoreError
            If units are missing.
        """
        snapshot = self.snapshot()
        if snapshot.missing_units:
            raise StoreError(f"run {snapshot.run_id} lacks the units {snapshot.missing_units}")
        if not snapshot.is_complete:
            row = {**snapshot.row, "status": "complete", "finished_at": timestamp()}
            self._commit(FINAL_UNIT, {RUNS.name: column_lists([row], RUNS)}, {}, 0)
        self._remove_orphans()

    def _create_arrays(self) -> None:
        if not self.manifest.arrays or self.layout.arrays.exists():
            return
        with self._staging() as folder:
            self._create_arrays_in(folder)
            try:
                (folder / "arrays.zarr").rename(self.layout.arrays)
            except OSError:
                # Another writer's group, which is the same, got there first.
                if not self.layout.arrays.is_dir():
                    raise
            sync_directory(self.layout.folder)

    def _create_arrays_in(self, folder: Path) -> None:
        layers = {row["layer"]: row for row in self.manifest.layers}
        d_model = self.manifest.row["d_model"]
        shapes = {}
        for name, kept in self.manifest.arrays.items():
            for layer in kept:
                row = layers.get(layer, {})
                sizes = {
                    "E": row.get("n_experts", 0),
                    "k": row.get("top_k", 0),
                    "d": d_model,
                    "h": row.get("d_expert", 0),
                }
                shapes[ArrayKey(name, layer)] = row_shape(array_spec(name), sizes)
        attributes = {"run_id": self.manifest.run_id, "model": self.manifest.row["model"]}
        dtype = "float16" if self.manifest.row["dtype"] == "float16" else "float32"
        create_arrays(folder / "arrays.zarr", shapes, self.manifest.n_rows, dtype, attributes)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a folder of this writer's own; its lock says that the writer is alive."""
        folder = self.layout.staging / f"{os.getpid()}-{secrets.token_hex(6)}"
        make_directories(self.layout.staging)
        lock = _staging_lock(folder)
        with lock:
            make_directories(folder)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)

    def _commit(
        self,
        unit: str,
        tables: Mapping[str, Columns],
        arrays: Mapping[ArrayKey, Rows],
        first_row: int,
    ) -> bool:
        if self.layout.segment(unit).exists():
            return False
        with self._staging() as folder:
            entries = self._stage_tables(folder, unit, tables)
            shards = self._stage_arrays(folder, first_row, arrays)
            with FileLock(self.layout.lock):
                if self.layout.segment(unit).exists():
                    return False
                files = [entry.file for entry in entries.values()] + shards
                for file in files:
                    move_durably(folder / file.path, self.layout.folder / file.path)
                for parent in sorted({(self.layout.folder / f.path).parent for f in files}):
                    sync_directory(parent)
                manifest = SegmentManifest(unit, timestamp(), entries, tuple(shards))
                return create_exclusively(self.layout.segment(unit), manifest.to_json())

    def _stage_tables(
        self, folder: Path, unit: str, tables: Mapping[str, Columns]
    ) -> dict[str, TableEntry]:
        entries = {}
        attempt = secrets.token_hex(4)
        for name, columns in tables.items():
            rows = arrow_table(table(name), self.manifest.run_id, columns)
            relative = f"tables/{name}/{unit}-{attempt}.parquet"
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, table(name), rows)
            entries[name] = TableEntry(_entry(path, relative), len(rows))
        return entries

    def _stage_arrays(
        self, folder: Path, first_row: int, arrays: Mapping[ArrayKey, Rows]
    ) -> list[FileEntry]:
        if not arrays:
            return []
        staged = folder / "arrays.zarr"
        self._create_arrays_in(folder)
        write_rows(staged, first_row, arrays)
        return [_entry(path, str(path.relative_to(folder))) for path in shard_files(staged)]

    def _remove_orphans(self) -> None:
        """Delete files that writers left when they were stopped: nothing names them."""
        with FileLock(self.layout.lock):
            snapshot = self.snapshot()
            named = {path for name in TABLE_NAMES for path in snapshot.files(name)}
            for path in self.layout.tables.glob("*/*.parquet"):
                if path not in named:
                    path.unlink(missing_ok=True)
            self._sweep_staging()

    def _sweep_staging(self) -> None:
        """Delete what dead writers staged; the folders of those at work are locked."""
        staging = self.layout.staging
        if not staging.is_dir():
            return
        names = {entry.name.removesuffix(".lock") for entry in staging.iterdir()}
        for folder in (staging / name for name in names):
            lock = _staging_lock(folder)
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):
            staging.rmdir()


def _staging_lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _entry(path: Path, relative: str) -> FileEntry:
    sync_file(path)
    return FileEntry(relative, path.stat().st_size, sha256_of_file(path))


def remove_run(store: Path, run_id: str) -> None:
    """Delete a run, its configuration first, so that no reader sees half of it.

    The run may be damaged; its name must be whole.

    Raises
    ------
    RunNotFoundError
        If the store has no run of this name.
    """
    check_store(store)
    known = list(run_ids(store))
    if run_id not in known:
        raise RunNotFoundError(
            f"no run named {run_id!r} in {store}; {did_you_mean(run_id, known)}", "moedb runs"
        )
    layout = RunLayout(store, run_id)
    layout.manifest.unlink()
    sync_directory(layout.folder)
    shutil.rmtree(layout.folder)
