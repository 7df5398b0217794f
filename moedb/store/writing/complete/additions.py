"""Rows that are added to a complete run later: probes, labels, concepts.

An addition is one segment or several, each with files of its own, and each committed by the run's
next head, which names all that the run consisted of and that segment. A kill at any moment leaves
the run with all of a segment, or with nothing of it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import pyarrow as pa

from moedb.errors import UsageError, did_you_mean
from moedb.schemas.additions import Addition, check_addition_name
from moedb.schemas.manifests import ADDED, SegmentManifest, TableEntry
from moedb.schemas.tables import TABLES
from moedb.store.containment import check_inside, check_tree
from moedb.store.files import create_exclusively, move_into
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import StoredAddition, additions_of, without_addition
from moedb.store.reading.snapshot import RunSnapshot
from moedb.store.writing.complete.added_rows import expect_other_keys, write_added
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.complete.heads import (
    KEPT_FOR,
    head_of_sound_run,
    kept_from_now,
    write_next_head,
)
from moedb.store.writing.open_run import OpenRun, file_entry, timestamp
from moedb.store.writing.writability import check_writable, raise_minor_version

SEGMENTS_AT_ONCE = 64
"""Of more segments of one addition few are made, as soon as there are so many."""

Rows = Iterable[pa.Table | pa.RecordBatch]
"""Rows of a table in any order and pieces of any size, without ``run_id``."""


def add(
    store: Path,
    run_id: str,
    addition: Addition,
    tables: Mapping[str, Rows],
    *,
    replace: bool = False,
    kept_for: timedelta = KEPT_FOR,
) -> StoredAddition:
    """Add rows to a complete run, all of them or none.

    Parameters
    ----------
    store, run_id
        The run, by its whole name.
    addition
        What they are.
    tables
        For each table that takes additions its rows; these are read once, and a million of them
        held at a time.
    replace
        Put them in the place of an addition of the same name, if there is one; readers see the one
        or the other.
    kept_for
        How long the files of what is replaced stay, for readers that opened the run before.

    Returns
    -------
    StoredAddition
        What the run then has of this name.

    Raises
    ------
    UsageError
        If the run has an addition of this name already, or labels with one of the keys; or a table
        takes no additions.
    ValueError
        If the rows are not such as their table has, or of no token, example, layer or expert of
        the run.
    StoreError
        If the run is incomplete, damaged or deleted, or the store cannot be written.
    """
    check_writable(store, run_id)
    adding = _Adding(RunLayout(store, run_id), addition, kept_for)
    return adding.commit(tables, replaces=replace)


def append(
    store: Path,
    run_id: str,
    addition: Addition,
    part: str,
    tables: Mapping[str, Rows],
    *,
    kept_for: timedelta = KEPT_FOR,
) -> bool:
    """Add one part of an addition: the first makes it, the others go on with it.

    Parameters
    ----------
    store, run_id, addition, tables, kept_for
        As of :func:`add`. Kind and configuration must be those of the parts that are there.
    part
        The part's name, such as ``layer-3``.

    Returns
    -------
    bool
        False if the run has this part by now; then nothing of this call is seen.

    Raises
    ------
    UsageError, ValueError, StoreError
        As of :func:`add`; and if the addition is there with another kind or configuration, or was
        added whole.
    """
    check_writable(store, run_id)
    adding = _Adding(
        RunLayout(store, run_id), dataclasses.replace(addition, parts=(part,)), kept_for
    )
    if adding.has_part(part):
        return False
    found = adding.commit(tables, part=part)
    if found.n_segments > SEGMENTS_AT_ONCE:
        compact_run(store, run_id, kept_for, addition.name)
    return True


def remove_addition(
    store: Path, run_id: str, name: str, *, kept_for: timedelta = KEPT_FOR
) -> StoredAddition:
    """Take an addition out of a run, all of its parts.

    Its files are deleted after ``kept_for``, as those that a compaction has replaced are.

    Returns
    -------
    StoredAddition
        What the run had of it.

    Raises
    ------
    UsageError
        If the run has no addition of this name.
    StoreError
        If the run is incomplete, damaged or deleted, or the store cannot be written.
    """
    check_writable(store, run_id)
    return _Removing(RunLayout(store, run_id)).remove(name, kept_for)


def no_such_addition(run: RunSnapshot, name: str) -> UsageError:
    """What is said where a run has no addition of a name."""
    return UsageError(
        f"run {run.title} has no addition named {name!r}; {did_you_mean(name, additions_of(run))}",
        f"moedb show {run.run_id}",
    )


class _Removing(OpenRun):
    def remove(self, name: str, kept_for: timedelta) -> StoredAddition:
        with self._deletion_explained():
            while True:
                with self._locked():
                    run = self.snapshot()
                    head = head_of_sound_run(run, "changed")
                    found = additions_of(run).get(name)
                    if found is None:
                        raise no_such_addition(run, name)
                    kept = {s.path for s in without_addition(run, name).segments.values()}
                    segments = [entry for entry in head.segments if entry.path in kept]
                    until = kept_from_now(kept_for, head)
                    won = write_next_head(self.layout, head, segments, until)
                if won:
                    self._remove_orphans()
                    return found


@dataclass(frozen=True)
class _Staged:
    """A segment that waits for its commit."""

    unit: str
    tables: Mapping[str, tuple[TableEntry, ...]]
    keys: frozenset[str]
    folder: Path

    @property
    def paths(self) -> list[str]:
        return [entry.path for files in self.tables.values() for entry in files]


class _Adding(OpenRun):
    """One attempt to add a segment to a run."""

    def __init__(self, layout: RunLayout, addition: Addition, kept_for: timedelta) -> None:
        super().__init__(layout)
        check_addition_name(addition.name)
        self._addition = addition
        self._kept_for = kept_for

    def has_part(self, part: str) -> bool:
        found = additions_of(self.snapshot()).get(self._addition.name)
        return found is not None and part in found.about.parts

    def commit(
        self, tables: Mapping[str, Rows], part: str | None = None, replaces: bool = False
    ) -> StoredAddition:
        _expect_tables(tables)
        with self._deletion_explained():
            run = self.snapshot()
            head = head_of_sound_run(run, "added to")
            self._expect_place(run, part, replaces)
            self._remove_orphans()
            raise_minor_version(self.layout.store)
            unit = f"{ADDED}{head.number + 1:06d}-{token_hex(4)}"
            with self._staging() as folder:
                written, keys = write_added(run, tables, folder, unit)
                found = self._commit(_Staged(unit, written, keys, folder), part, replaces)
            # at once, where nothing is to be kept
            self._remove_orphans()
            return found

    def _commit(self, staged: _Staged, part: str | None, replaces: bool) -> StoredAddition:
        name, place = self._addition.name, self.layout.segment(staged.unit)
        moved = False
        while True:
            with self._locked():
                run = self.snapshot()
                head = head_of_sound_run(run, "added to")
                found = additions_of(run).get(name)
                if part is not None and found is not None and part in found.about.parts:
                    return found  # another process was first
                self._expect_place(run, part, replaces)
                rest = without_addition(run, name)
                expect_other_keys(rest, staged.keys)
                if not moved:
                    self._move(staged)
                    create_exclusively(place, self._segment(run, staged, found, part).to_json())
                    moved = True
                kept = rest if replaces else run
                paths = {segment.path for segment in kept.segments.values()}
                segments = [entry for entry in head.segments if entry.path in paths]
                segments.append(file_entry(self.layout.folder, self.layout.relative(place)))
                until = kept_from_now(self._kept_for, head)
                if write_next_head(self.layout, head, segments, until):
                    return additions_of(self.snapshot())[name]

    def _move(self, staged: _Staged) -> None:
        """Move a segment's files to their places."""
        check_tree(self.layout.tables)
        for path in staged.paths:
            check_inside(self.layout.folder, path)
        move_into(self.layout.folder, {path: staged.folder / path for path in staged.paths})

    def _segment(
        self, run: RunSnapshot, staged: _Staged, found: StoredAddition | None, part: str | None
    ) -> SegmentManifest:
        now = timestamp()
        goes_on = found is not None and part is not None
        return SegmentManifest(
            unit=staged.unit,
            committed_at=now,
            tables=dict(staged.tables),
            shards=(),
            run_id=run.run_id,
            path=self.layout.relative(self.layout.segment(staged.unit)),
            run_sha256=self._run_sha256,
            arrays_sha256=next(iter(run.segments.values())).arrays_sha256,
            addition=dataclasses.replace(
                self._addition, added_at=found.about.added_at if found and goes_on else now
            ),
        )

    def _expect_place(self, run: RunSnapshot, part: str | None, replaces: bool) -> None:
        """Check that the run has a place for what is to be added."""
        mine, found = self._addition, additions_of(run).get(self._addition.name)
        if found is None or replaces:
            return
        which = f"run {run.title} has an addition named {mine.name!r}"
        if part is None:
            raise UsageError(
                f"{which} already, added {found.about.added_at}",
                "replace it (--replace), or choose another name (--name NAME)",
            )
        if not found.about.parts:
            raise UsageError(f"{which}, which has no parts", "choose another name (--name NAME)")
        if (mine.kind, mine.config) != (found.about.kind, found.about.config):
            raise UsageError(
                f"{which} that was made with other settings: {found.about.config}, "
                f"and not {mine.config}",
                "go on with those, or choose another name (--name NAME)",
            )


def _expect_tables(names: Iterable[str]) -> None:
    """Check that rows of some tables can be added to a run."""
    taking = [table.name for table in TABLES if table.added_by]
    for name in names:
        if name not in taking:
            raise UsageError(f"no rows are added to {name!r}; {did_you_mean(name, taking)}")
