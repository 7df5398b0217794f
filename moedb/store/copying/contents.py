"""What a run consists of: its files, and the manifests that commit them, in order."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from moedb.errors import StoreDamagedError, StoreError
from moedb.schemas.manifests import SEALED_SINCE, FileEntry, SegmentManifest
from moedb.store.containment import read_text
from moedb.store.files import sha256_of_text
from moedb.store.layout import ARRAYS, FINAL_UNIT, FIRST_UNIT, METADATA, metadata_paths
from moedb.store.reading.places.remote_store import fetch_metadata
from moedb.store.reading.snapshot import RunSnapshot, of_run


@dataclass(frozen=True)
class Piece:
    """A unit of a run, or what stands for several: files, and the manifest that commits them.

    Attributes
    ----------
    unit
        Its name.
    path, text
        The manifest.
    files
        The files of its tables and arrays.
    """

    unit: str
    path: str
    text: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class RunContents:
    """A run as it was when its store was read.

    Attributes
    ----------
    run
        The run.
    configuration
        Its ``run.json``.
    metadata
        The arrays' metadata: for each path the text.
    pieces
        What is committed: the rows of the run as a whole, the units, the end.
    head_path, head
        The newest head; None without one.
    """

    run: RunSnapshot
    configuration: str
    metadata: dict[str, str]
    pieces: tuple[Piece, ...]
    head_path: str | None
    head: str | None

    @cached_property
    def files(self) -> dict[str, FileEntry]:
        """Every file of tables and arrays, by its path; several pieces may name one."""
        return {entry.path: entry for piece in self.pieces for entry in piece.files}

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """The bytes of a file, some at a time, held against its hash at the end.

        Raises
        ------
        StoreDamagedError
            If they are not what was committed.
        StoreError
            If they cannot be read.
        """
        found, n_bytes = hashlib.sha256(), 0
        place = f"{self.run.place.root}/{entry.path}"
        try:
            for block in self.run.place.blocks(entry.path, entry.n_bytes):
                found.update(block)
                n_bytes += len(block)
                yield block
        except FileNotFoundError as error:
            raise of_run(
                self.run, StoreDamagedError(f"the committed file {place} is missing")
            ) from error
        except OSError as error:
            raise StoreError(f"cannot read {place}: {error.strerror or error}") from error
        if (found.hexdigest(), n_bytes) != (entry.sha256, entry.n_bytes):
            raise of_run(self.run, StoreDamagedError(f"{place} is not what was committed"))


def contents_of(run: RunSnapshot) -> RunContents:
    """Read what a run consists of, after checking that its files are there.

    Raises
    ------
    StoreDamagedError
        If a file is missing or cut short, or its place is none that moedb writes to.
    """
    try:
        for _, entry in run.entries():
            _expect_place(entry)
        run.place.check_whole(run.table_files())
        run.place.check_whole(run.shards())
        head_path = None if run.head is None else run.head.path
        return RunContents(
            run,
            _text(run.layout.manifest),
            _metadata(run),
            tuple(_piece(run, run.segments[unit]) for unit in sorted(run.segments, key=_order)),
            head_path,
            None if head_path is None else _text(run.layout.folder / head_path),
        )
    except StoreDamagedError as error:
        if error.message.startswith(f"run {run.run_id}: "):
            raise
        raise of_run(run, error) from error


def _order(unit: str) -> tuple[int, str]:
    return ({FIRST_UNIT: 0, FINAL_UNIT: 2}.get(unit, 1), unit)


def _piece(run: RunSnapshot, segment: SegmentManifest) -> Piece:
    entries = [entry.file for files in segment.tables.values() for entry in files]
    place = run.layout.segment(segment.unit)
    path = run.layout.relative(place)
    return Piece(segment.unit, path, _text(place), (*entries, *segment.shards))


def _expect_place(entry: FileEntry) -> None:
    """Check that a committed file is among those of tables or arrays, where no manifest is."""
    first, *others = PurePosixPath(entry.path).parts
    is_ours = first in ("tables", ARRAYS) and others and others[-1] != METADATA
    if not is_ours or any(part.startswith(".") for part in others) or "//" in entry.path:
        raise StoreDamagedError(f"{entry.path!r} is no place of a table's file, or an array's")


def _metadata(run: RunSnapshot) -> dict[str, str]:
    """The arrays' metadata, against their hashes where the run has those."""
    first = run.segments.get(FIRST_UNIT)
    if not run.manifest.arrays or (first is None and run.head is None):
        return {}
    keys = [f"{name}/{at}" for name, layers in run.manifest.arrays.items() for at in layers]
    if run.remote is not None:
        fetch_metadata(run.remote, run.run_id, keys)
    found = {path: _text(run.layout.folder / path) for path in metadata_paths(keys)}
    known = run.head or first
    if run.format >= SEALED_SINCE and known is not None:
        hashes = {entry.path: entry.sha256 for entry in known.metadata}
        for path, text in found.items():
            if hashes.get(path) != sha256_of_text(text):
                raise StoreDamagedError(
                    f"{run.place.root}/{path} is not what the run was written with"
                )
    return found


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise StoreDamagedError(f"{path} is missing") from error
