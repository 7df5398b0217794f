"""Few large files instead of many small ones: a complete run's tables, put together and sorted.

The parts of an addition are put together too, apart from the run's own units and from other
additions. A file is made of stretches of neighbouring units, each in the order of the table.

The new files count from the moment that the run's next head exists, which one writer alone can
create. What they replace stays for a while, for readers that opened the run before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moedb.schemas.manifests import ADDED, SegmentManifest, TableEntry
from moedb.schemas.tables import TABLES, Table
from moedb.store.containment import check_inside, check_tree
from moedb.store.files import create_exclusively, move_into, sync_file
from moedb.store.layout import COMPACTED, RunLayout
from moedb.store.reading.additions import addition_of
from moedb.store.reading.committed import newest_head
from moedb.store.reading.snapshot import RunSnapshot, check_sum
from moedb.store.writing.complete.heads import (
    KEPT_FOR,
    head_of_sound_run,
    kept_from_now,
    write_next_head,
)
from moedb.store.writing.open_run import OpenRun, file_entry, timestamp
from moedb.store.writing.tables.parquet import in_order, write_stretches
from moedb.store.writing.writability import check_writable

UNITS_AT_END = 256
"""A run of more units is compacted when it is finished."""

FILE_ROWS = 16_000_000
"""Rows of a file, about."""

STRETCH_ROWS = 1_000_000
"""Rows of a stretch that is sorted, about; as many are held in memory.

Over a longer one the tokens of a layer lie so far apart that joins on them miss the caches: of 48
million decisions they took twice the time where stretches had eight million.
"""

Found = tuple[str, TableEntry]


@dataclass(frozen=True)
class Compacted:
    """What became of a run's files.

    Attributes
    ----------
    files_before, files_after
        How many files its tables were, and are.
    """

    files_before: int
    files_after: int


def compact_run(
    store: Path, run_id: str, kept_for: timedelta = KEPT_FOR, addition: str | None = None
) -> Compacted | None:
    """Put the files of a complete run's tables together, and those of each of its additions.

    A kill at any moment loses nothing: before the next head the old files count, after it the new
    ones. Files that an earlier compaction has replaced are deleted, where their time is over.

    Parameters
    ----------
    store, run_id
        The run, by its whole name.
    kept_for
        How long the replaced files stay.
    addition
        The one addition whose parts are put together, and nothing else; None for all that is there.

    Returns
    -------
    Compacted or None
        None where there is nothing to do, or another process has just done it.

    Raises
    ------
    StoreError
        If the run is incomplete, damaged or deleted, or the store cannot be written.
    """
    check_writable(store, run_id)
    place = _Compaction(RunLayout(store, run_id))
    return place.compact(kept_for, addition)


class _Compaction(OpenRun):
    """One attempt to compact a run."""

    def compact(self, kept_for: timedelta, addition: str | None = None) -> Compacted | None:
        with self._deletion_explained():
            run = self.snapshot()
            head = head_of_sound_run(run, "compacted")
            self._remove_orphans()
            before, groups = run.n_files, list(_several(run, addition))
            if not groups:
                return None
            with self._staging() as folder:
                units = [_unit_name(group, head.number + 1) for group in groups]
                written = [
                    _Written(group, unit, tuple(_tables(group, folder, unit)))
                    for group, unit in zip(groups, units, strict=True)
                ]
                won = self._commit(run, written, folder, kept_for)
            # at once, where nothing is to be kept
            self._remove_orphans()
            return Compacted(before, self.snapshot().n_files) if won else None

    def _commit(
        self, run: RunSnapshot, written: Sequence["_Written"], folder: Path, kept_for: timedelta
    ) -> bool:
        """Move the new files to their places and write the next head, if they still stand for it.

        What was added meanwhile stays beside them.
        """
        kept_before = {entry.path for entry in run.table_files()}
        new = [entry.path for each in written for entry in each.files]
        new = [path for path in new if path not in kept_before]
        replaced = {segment.path for each in written for segment in each.group.segments.values()}
        with self._locked():
            head, _ = newest_head(self.layout)
            if head is None or not replaced <= {entry.path for entry in head.segments}:
                return False
            check_tree(self.layout.tables)
            for path in new:
                check_inside(self.layout.folder, path)
            move_into(self.layout.folder, {path: folder / path for path in new})
            segments = [entry for entry in head.segments if entry.path not in replaced]
            for each in written:
                segment = self._segment(each)
                create_exclusively(self.layout.segment(each.unit), segment.to_json())
                segments.append(file_entry(self.layout.folder, segment.path))
            return write_next_head(self.layout, head, segments, kept_from_now(kept_for))

    def _segment(self, written: "_Written") -> SegmentManifest:
        group = written.group
        return SegmentManifest(
            unit=written.unit,
            committed_at=timestamp(),
            tables=dict(written.tables),
            shards=tuple(group.shards()),
            run_id=group.run_id,
            path=self.layout.relative(self.layout.segment(written.unit)),
            run_sha256=self._run_sha256,
            arrays_sha256=next(iter(group.segments.values())).arrays_sha256,
            addition=addition_of(group.segments.values()),
        )


@dataclass(frozen=True)
class _Written:
    """What stands for several segments: those of the run itself, or of one addition."""

    group: RunSnapshot
    unit: str
    tables: tuple[tuple[str, tuple[TableEntry, ...]], ...]

    @property
    def files(self) -> list[TableEntry]:
        return [entry for _, entries in self.tables for entry in entries]


def _several(run: RunSnapshot, addition: str | None) -> Iterator[RunSnapshot]:
    """The run's own segments, then those of each addition, where these are several; or of one."""
    groups: dict[str | None, dict[str, SegmentManifest]] = {None: {}}
    for unit, segment in sorted(run.segments.items()):
        name = segment.addition.name if segment.addition else None
        groups.setdefault(name, {})[unit] = segment
    for name, segments in groups.items():
        if len(segments) > 1 and addition in (None, name):
            yield replace(run, segments=segments)


def _unit_name(group: RunSnapshot, number: int) -> str:
    is_own = all(segment.addition is None for segment in group.segments.values())
    return f"{f'{COMPACTED}-' if is_own else ADDED}{number:06d}-{token_hex(4)}"


def _tables(
    group: RunSnapshot, folder: Path, unit: str
) -> Iterator[tuple[str, tuple[TableEntry, ...]]]:
    for table in TABLES:
        if any(table.name in segment.tables for segment in group.segments.values()):
            yield table.name, tuple(_compacted(group, table, folder, unit))


def _compacted(run: RunSnapshot, table: Table, folder: Path, unit: str) -> Iterator[TableEntry]:
    """Write a table's files anew, few and large; one that has a single file keeps it."""
    found = [
        (name, entry)
        for name, segment in sorted(run.segments.items())
        for entry in segment.tables.get(table.name, ())
    ]
    if len(found) == 1:
        yield found[0][1]
        return
    for index, group in enumerate(_groups(found, FILE_ROWS)):
        relative = f"tables/{table.name}/{unit}-{index:04d}.parquet"
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        stretches = _groups(group, min(STRETCH_ROWS, FILE_ROWS))
        n_rows = write_stretches(
            path, table, (_sorted_rows(run, table, stretch) for stretch in stretches)
        )
        sync_file(path)
        yield TableEntry(*file_entry(folder, relative), n_rows, _common_bits(group))


def _groups(found: Sequence[Found], most: int) -> Iterator[list[Found]]:
    """Files of neighbouring units, as many as have no more than so many rows; at least one."""
    group: list[Found] = []
    n_rows = 0
    for name, entry in found:
        if group and n_rows + entry.n_rows > most:
            yield group
            group, n_rows = [], 0
        group.append((name, entry))
        n_rows += entry.n_rows
    yield group


def _common_bits(group: Sequence[Found]) -> dict[str, int]:
    """The significant bits that hold the values of every file, where all of them say so."""
    first, *others = (entry.significant_bits for _, entry in group)
    return {
        column: max(bits, *(other[column] for other in others)) if others else bits
        for column, bits in first.items()
        if all(column in other for other in others)
    }


def _sorted_rows(run: RunSnapshot, table: Table, group: Sequence[Found]) -> pa.Table:
    """The rows of several files in the order of the table.

    Each file is in it, and the units follow each other: so their rows for one value of the first
    key, a layer, are laid end to end. Where that is not the order, they are sorted.
    """
    parts = []
    for unit, entry in group:
        check_sum(run, unit, entry.file)
        names = [column.name for column in table.columns if column.type == "string"]
        path = run.layout.folder / entry.path
        file = pq.ParquetFile(path, read_dictionary=names)
        parts.append(file.read(use_threads=entry.n_rows > _WORTH_THREADS))
    leading = table.sort_by[0]
    found = {value for part in parts for value in pc.unique(part[leading]).to_pylist()}
    values = sorted(found - {None})
    is_end_to_end = len(table.sort_by) > 1 and len(values) <= _MANY_VALUES and None not in found
    rows = pa.concat_tables(
        [piece for value in values for part in parts if len(piece := _where(part, leading, value))]
        if is_end_to_end
        else parts
    ).unify_dictionaries()
    return rows if _is_sorted(rows, table.sort_by) else in_order(rows, table)


_MANY_VALUES = 1_000
_WORTH_THREADS = 100_000


def _where(rows: pa.Table, name: str, value: object) -> pa.Table:
    """The rows with one value of the column that they are sorted by first."""
    mask = np.flatnonzero(np.asarray(pc.equal(rows[name], value)))
    return rows.slice(mask[0], mask[-1] + 1 - mask[0]) if len(mask) else rows.slice(0, 0)


def _is_sorted(rows: pa.Table, keys: Sequence[str]) -> bool:
    """Whether rows are in ascending order of their keys."""
    if any(rows[name].null_count for name in keys):
        return False
    undecided = np.ones(max(len(rows) - 1, 0), np.bool_)
    for name in keys:
        column = rows[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        before, after = column.slice(0, len(undecided)), column.slice(1)
        if np.asarray(pc.greater(before, after))[undecided].any():
            return False
        undecided &= np.asarray(pc.equal(before, after))
    return True
