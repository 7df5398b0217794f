"""Writing runs: a unit is staged, moved to its place, and counts when its manifest exists.

A run is complete when its first head exists, which names every unit's manifest by its hash.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from moedb.errors import StoreError
from moedb.schemas.manifests import (
    FileEntry,
    HeadManifest,
    RunManifest,
    SegmentManifest,
    TableEntry,
)
from moedb.schemas.tables import MOE_LAYERS, RUNS, table
from moedb.store.arrays.stored import (
    ArrayKey,
    Rows,
    array_attributes,
    array_forms,
    check_metadata,
    create_arrays,
    hash_of_metadata,
    metadata_files,
    missing_arrays,
    shard_files,
    write_rows,
)
from moedb.store.containment import check_folder, check_inside, check_tree
from moedb.store.files import (
    create_exclusively,
    make_directories,
    move_into,
    sync_directory,
    sync_file,
    sync_tree,
)
from moedb.store.layout import (
    ARRAYS,
    FINAL_UNIT,
    FIRST_UNIT,
    RunLayout,
    metadata_paths,
    unit_name,
)
from moedb.store.reading.committed import head_numbers
from moedb.store.reading.listing import visible_names
from moedb.store.reading.snapshot import check_files
from moedb.store.writing.complete.compaction import UNITS_AT_END, compact_run
from moedb.store.writing.open_run import OpenRun, deleted, file_entry, timestamp
from moedb.store.writing.removal import sweep_deleted
from moedb.store.writing.sweeping import sweep_store
from moedb.store.writing.tables.parquet import Columns, arrow_table, column_lists, write_parquet
from moedb.store.writing.tables.precision import rounded
from moedb.store.writing.writability import ensure_store


class RunWriter(OpenRun):
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
        layout = RunLayout(store, manifest.run_id)
        check_tree(layout.folder)
        try:
            make_directories(layout.segments)
            create_exclusively(layout.manifest, manifest.to_json())
        except FileNotFoundError as error:
            raise deleted(layout.run_id) from error
        super().__init__(layout)
        self.manifest = self.snapshot().manifest
        # Whoever made these folders may have been stopped before their entries were durable.
        for folder in (self.layout.folder, self.layout.folder.parent, store):
            sync_directory(folder)
        with self._deletion_explained():
            self._create_arrays()
            self._metadata = metadata_files(self.manifest, self.layout.folder)

    def has_unit(self, unit: int) -> bool:
        """Whether a unit is committed by now, by whichever writer."""
        return self._has(unit_name(unit))

    def has_begun(self) -> bool:
        """Whether what describes the run as a whole is committed by now."""
        return self._has(FIRST_UNIT)

    def begin(
        self,
        tables: Mapping[str, Columns],
        at: str | None = None,
        arrays: Mapping[ArrayKey, Rows] = MappingProxyType({}),
    ) -> None:
        """Commit what describes the run as a whole, such as its labels and its conditions.

        Parameters
        ----------
        tables
            The rows; the table ``moe_layers`` is added from the run's manifest.
        at
            When it was committed, if that was not now.
        arrays
            The arrays whose rows are no tokens.
        """
        layers = column_lists(self.manifest.layers, MOE_LAYERS)
        self._commit(FIRST_UNIT, {**tables, MOE_LAYERS.name: layers}, arrays, 0, at)

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
            if len(snapshot.manifest.units) > UNITS_AT_END:
                compact_run(self.layout.store, snapshot.run_id)
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
        paths = metadata_paths(key.path for key in keys)
        move_into(self.layout.folder, {path: folder / path for path in paths})

    def _create_arrays_in(self, folder: Path) -> None:
        attributes = {"run_id": self.manifest.run_id, "model": self.manifest.row["model"]}
        of_arrays = array_attributes(self.manifest)
        create_arrays(folder / ARRAYS, array_forms(self.manifest), attributes, of_arrays)

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
                files = [entry.path for found in entries.values() for entry in found]
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
            entries[name] = (TableEntry(*file_entry(folder, relative), len(rows), bits),)
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
