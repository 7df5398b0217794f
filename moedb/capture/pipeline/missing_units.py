"""Running what is missing of a run, unit by unit: the same for a capture and for interventions."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from moedb.capture.pipeline.assembly import UnitRows
from moedb.capture.pipeline.background_writer import UnitWriter
from moedb.capture.pipeline.units import Shard
from moedb.errors import CaptureError
from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.schemas.run_names import RunName
from moedb.store.arrays.stored import ArrayKey, Rows
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import RunSnapshot, check_files, read_run
from moedb.store.writing.naming import check_name_is_free, name_run
from moedb.store.writing.run_writer import RunWriter
from moedb.store.writing.tables.parquet import Columns
from moedb.store.writing.writability import check_writable, is_store

EVERYTHING = Shard()


class Progress(Protocol):
    """Who wants to hear how a run goes on."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def begin(self, n_tokens: int, done: int) -> None:
        """The model is about to run: tokens in all, and those committed earlier."""

    def advance(self, n_tokens: int) -> None:
        """A batch went through the model."""


class Silent:
    """Hears nothing."""

    def note(self, text: str) -> None:
        """Pass over."""

    def begin(self, n_tokens: int, done: int) -> None:
        """Pass over."""

    def advance(self, n_tokens: int) -> None:
        """Pass over."""


@dataclass(frozen=True)
class CaptureOutcome:
    """How a capture, or a sweep of interventions, ended.

    Attributes
    ----------
    run_id
        The run.
    units_before, units_now, units_missing
        Units that were there, that this call wrote, and that are left to other shards.
    """

    run_id: str
    units_before: int
    units_now: int
    units_missing: int = 0

    @property
    def was_complete(self) -> bool:
        """Whether there was nothing to do."""
        return self.units_now == 0 and self.units_missing == 0


class PlannedRun(Protocol):
    """A run with every choice made, before anything is written."""

    @property
    def run_id(self) -> str:
        """Its name."""

    @property
    def named(self) -> RunName:
        """What its user calls it."""

    @property
    def units(self) -> tuple[UnitRange, ...]:
        """Its units."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""

    def bytes_of(self, units: Sequence[int]) -> int:
        """Bytes that these units take at most, before compression."""


class ReadyRun(Protocol):
    """A run whose model is ready."""

    @property
    def manifest(self) -> RunManifest:
        """Its configuration, with what is known of the model."""

    @property
    def first_tables(self) -> dict[str, Columns]:
        """The rows that describe the run as a whole."""

    @property
    def first_arrays(self) -> Mapping[ArrayKey, Rows]:
        """The arrays of the run as a whole."""

    def run_unit(self, unit: int) -> Callable[[], UnitRows]:
        """Run a unit through the model; return what makes its rows, on any thread."""


def run_missing_units(
    planned: PlannedRun,
    store: Path,
    opened: Callable[[], AbstractContextManager[ReadyRun]],
    progress: Progress,
    *,
    to_write_less: str,
    shard: Shard = EVERYTHING,
    first_decides: bool = False,
    claim: Callable[[RunManifest], None] | None = None,
) -> CaptureOutcome:
    """Run what is missing of a run, or of one shard of it, and commit it unit by unit.

    Parameters
    ----------
    planned
        The run.
    store
        The store's folder; made if need be.
    opened
        Makes the model ready.
    progress
        Hears how it goes on.
    to_write_less
        What to type where the disk is too full.
    shard
        Which units are this process's. Whoever commits the last unit of all completes the run.
    first_decides
        Whether the first unit can refuse the run as a whole: then there is no run before it has
        gone through the model.
    claim
        Called with the run's configuration before the run is begun; it may make the run in the
        store, which is then gone on with.

    Raises
    ------
    UsageError
        If another run is called what this one is to be called.
    CaptureError
        If there is no room on the disk. What was committed stays, and the same command resumes.
    StoreError
        If the store cannot be written, or what it has of the run is damaged.
    """
    units = planned.units
    done = _committed(store, planned.run_id)
    check_name_is_free(store, planned.named.name, planned.run_id)
    if done is not None and done.is_complete:
        _name(planned, store)
        return CaptureOutcome(planned.run_id, len(units), 0)
    check_writable(store, planned.run_id)
    missing = range(len(units)) if done is None else done.missing_units
    _check_room(planned, missing, store, to_write_less)
    for note in planned.notes:
        progress.note(note)
    with _full_disk_explained(planned.run_id), opened() as ready:
        manifest = ready.manifest
        if claim is not None:
            claim(manifest)
        # Opening a model can take minutes, in which others may have gone on.
        begun = _committed(store, planned.run_id)
        before = range(len(units)) if begun is None else begun.missing_units
        mine = shard.units(before)
        share = sum(units[unit].n_tokens for unit in shard.units(range(len(units))))
        progress.begin(share, share - sum(units[unit].n_tokens for unit in mine))
        deciding = mine[:1] if first_decides and begun is None else []
        tried = {unit: ready.run_unit(unit) for unit in deciding}
        writer = RunWriter(store, manifest)
        if not writer.has_begun():  # what describes the run may take long to make
            writer.begin(ready.first_tables, arrays=ready.first_arrays)
        _name(planned, store)
        written = 0
        with UnitWriter() as queue:
            for unit in mine:
                if writer.has_unit(unit):  # another process was faster
                    continue
                rows_of_unit = tried.pop(unit) if unit in tried else ready.run_unit(unit)
                queue.submit(partial(_commit, writer, rows_of_unit))
                written += 1
        left = writer.snapshot().missing_units
        if not left:
            writer.finish()
    return CaptureOutcome(planned.run_id, len(units) - len(before), written, len(left))


def _name(planned: PlannedRun, store: Path) -> None:
    if planned.named != RunName():
        name_run(store, planned.run_id, planned.named)


def _commit(writer: RunWriter, rows_of_unit: Callable[[], UnitRows]) -> None:
    rows = rows_of_unit()
    writer.commit_unit(rows.unit, rows.tables, rows.arrays)


def _check_room(
    planned: PlannedRun, missing: Sequence[int], store: Path, to_write_less: str
) -> None:
    needed, free = planned.bytes_of(missing), free_bytes(store)
    if needed > free:
        raise CaptureError(
            f"the run takes up to {needed / 1e9:.2f} GB, the disk of {store} has "
            f"{free / 1e9:.2f} GB free",
            to_write_less,
        )


def free_bytes(store: Path) -> int:
    """Free bytes on the disk that holds, or will hold, ``store``."""
    folder = store.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def _full_disk_explained(run_id: str) -> Iterator[None]:
    """Say what a full disk means for a run that is being written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CaptureError(
                f"no room to write the run {run_id}: {error.strerror}",
                "what was committed stays; free some space and run the same command again",
            ) from error
        raise


def _committed(store: Path, run_id: str) -> RunSnapshot | None:
    """What the store has of a run, if anything."""
    if not is_store(store) or not os.path.lexists(RunLayout(store, run_id).manifest):
        return None
    found = read_run(store, run_id)
    check_files(found)
    return found
