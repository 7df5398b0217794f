"""Copying into a folder: a complete run is put together in a hidden folder beside it, then renamed.

What is brought waits there, so that a copy that was stopped goes on with it. What goes into a run
that readers see is moved to its place under the run's lock, its manifest last.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import StoreError
from moedb.schemas.manifests import FileEntry, StoreManifest
from moedb.store.containment import check_file, check_inside, check_tree
from moedb.store.copying.contents import Piece, RunContents
from moedb.store.copying.target import Advance, new_files
from moedb.store.copying.threads import each_in_threads
from moedb.store.files import (
    create_exclusively,
    make_directories,
    move_into,
    sha256_of_file,
    sync_directory,
    sync_file,
    sync_tree,
    write_over,
)
from moedb.store.layout import STORE_MANIFEST, RunLayout, copying_folder, runs_folder
from moedb.store.reading.listing import read_store, run_names
from moedb.store.reading.snapshot import RunSnapshot, read_run, take_snapshot


class LocalTarget:
    """A store in a folder.

    Parameters
    ----------
    store
        The folder; made if need be.
    """

    def __init__(self, store: Path) -> None:
        self.store = store

    @property
    def title(self) -> str:
        """Its folder."""
        return str(self.store)

    def format(self) -> StoreManifest | None:
        """The version of its format; None where there is no store yet."""
        with _explained(self.store):
            if os.path.lexists(self.store / STORE_MANIFEST):
                return read_store(self.store)
            if os.path.lexists(self.store) and not self.store.is_dir():
                raise StoreError(f"{self.store} is no folder", "name another one")
            names = [each.name for each in self.store.iterdir()] if self.store.exists() else []
            if any(STORE_MANIFEST not in name for name in names):
                raise StoreError(
                    f"{self.store} is neither empty nor a moedb store", "name another folder"
                )
        return None

    def prepare(self, manifest: StoreManifest) -> None:
        """Make a store of it if it is none, or raise the minor version of one."""
        self.format()
        with _explained(self.store):
            make_directories(self.store)
            place = self.store / STORE_MANIFEST
            made = create_exclusively(place, manifest.to_json())
            if not made and read_store(self.store).minor < manifest.minor:
                write_over(place, manifest.to_json())
            make_directories(runs_folder(self.store))

    def names(self) -> dict[str, str]:
        """The names that were given to runs there, by run."""
        runs = take_snapshot(self.store).runs.values()
        return {run.run_id: run.named.name for run in runs if run.named.name is not None}

    def place(self, run_id: str) -> "LocalRun":
        """A run there, to look at it."""
        return LocalRun(RunLayout(self.store, run_id), copying_folder(self.store, run_id))

    @contextmanager
    def opened(self, run_id: str, take_over: bool) -> Iterator["LocalRun"]:
        """Open a run to copy it there; one copy of a run at a time is."""
        folder = copying_folder(self.store, run_id)
        place = folder.with_name(f"{folder.name}.lock")
        with _explained(self.store):
            check_tree(folder)
            check_file(place)
            lock = FileLock(place)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise StoreError(
                    f"another copy of the run {run_id} into {self.store} is under way",
                    "wait until it is done",
                ) from error
            try:
                yield self.place(run_id)
            finally:
                place.unlink(missing_ok=True)
                lock.release()


class LocalRun:
    """A run in a folder while it is copied there."""

    def __init__(self, layout: RunLayout, staging: Path) -> None:
        self._layout, self._staging = layout, staging

    def there(self) -> RunSnapshot | None:
        """What readers see of the run now."""
        if self._layout.run_id not in run_names(self._layout.store):
            return None
        return read_run(self._layout.store, self._layout.run_id)

    def missing(self, contents: RunContents, entries: Iterable[FileEntry]) -> list[FileEntry]:
        """Of some files those that are neither in the run nor waiting for it."""
        folders = (self._layout.folder, self._staging)
        return [
            entry
            for entry in entries
            if not any(_size(folder / entry.path) == entry.n_bytes for folder in folders)
        ]

    def done(self) -> None:
        """Delete the folder in which files waited."""
        shutil.rmtree(self._staging, ignore_errors=True)

    def publish(self, contents: RunContents, name: str | None, advance: Advance) -> bool:
        """Put the run together and give it its name."""
        self._bring(contents, contents.files.values(), advance)
        texts = {**contents.metadata, **{piece.path: piece.text for piece in contents.pieces}}
        texts["run.json"] = contents.configuration
        if contents.head_path is not None and contents.head is not None:
            texts[contents.head_path] = contents.head
        if name is not None:
            texts["name.json"] = name
        for path, text in texts.items():
            place = self._staging / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
        wanted = {self._staging / path for path in (*texts, *contents.files)}
        for found in self._staging.rglob("*"):
            if not found.is_dir() and found not in wanted:
                found.unlink()  # of an earlier copy, of what the run was then
        sync_tree(self._staging)
        if not os.path.lexists(self._layout.manifest):
            with suppress(OSError):  # of a writer that was stopped at once
                self._layout.segments.rmdir()
        try:
            self._staging.rename(self._layout.folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        sync_directory(self._layout.folder.parent)
        return True

    def begin(self, configuration: str) -> bool:
        """Write the run's configuration."""
        make_directories(self._layout.segments)
        begun = create_exclusively(self._layout.manifest, configuration)
        sync_directory(self._layout.folder.parent)
        return begun

    def commit(self, contents: RunContents, piece: Piece, advance: Advance) -> bool:
        """Bring the files of a unit, move them to their places, and write its manifest."""
        self._bring(contents, piece.files, advance)
        with self._locked(contents):
            if os.path.lexists(self._layout.folder / piece.path):
                return text_at_now(self._layout, piece.path) == piece.text
            self._move(contents, piece.files)
            return create_exclusively(self._layout.folder / piece.path, piece.text)

    def finish(
        self,
        contents: RunContents,
        pieces: tuple[Piece, ...],
        there: RunSnapshot,
        advance: Advance,
    ) -> bool:
        """Bring what a newer head names, move it to its places, and write the head."""
        files = new_files(pieces, there)
        self._bring(contents, files, advance)
        with self._locked(contents):
            now = self.there()
            if now is None or now.head != there.head or contents.head_path is None:
                return False
            self._move(contents, files)
            make_directories(self._layout.heads)
            for piece in pieces:
                create_exclusively(self._layout.folder / piece.path, piece.text)
            head = self._layout.folder / contents.head_path
            return create_exclusively(head, contents.head or "")

    def _bring(self, contents: RunContents, entries: Iterable[FileEntry], advance: Advance) -> None:
        def bring(entry: FileEntry) -> None:
            if not self._is_here(entry):
                self._write(contents, entry)
            advance(entry.n_bytes)

        each_in_threads(bring, entries)

    def _is_here(self, entry: FileEntry) -> bool:
        if _size(self._layout.folder / entry.path) == entry.n_bytes:
            check_inside(self._layout.folder, entry.path)
            return sha256_of_file(self._layout.folder / entry.path) == entry.sha256
        waiting = self._staging / entry.path
        return _size(waiting) == entry.n_bytes and sha256_of_file(waiting) == entry.sha256

    def _write(self, contents: RunContents, entry: FileEntry) -> None:
        place = self._staging / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.tmp")
        try:
            with temporary.open("wb") as stream:
                for block in contents.blocks(entry):
                    stream.write(block)
            sync_file(temporary)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)

    def _move(self, contents: RunContents, entries: Iterable[FileEntry]) -> None:
        """Move what waits to its place in the run, the arrays' metadata first; its lock is held."""
        folder = self._layout.folder
        for path, text in contents.metadata.items():
            check_inside(folder, path)
            place = folder / path
            make_directories(place.parent)
            if not create_exclusively(place, text) and text_at_now(self._layout, path) != text:
                raise StoreError(
                    f"the arrays in {self._layout.arrays} were made by another version of zarr",
                    "copy to another store",
                )
        waiting = {entry.path: self._staging / entry.path for entry in entries}
        waiting = {path: place for path, place in waiting.items() if place.exists()}
        for path in waiting:
            check_inside(folder, path)
        move_into(folder, waiting)

    @contextmanager
    def _locked(self, contents: RunContents) -> Iterator[None]:
        """Hold the run's lock, which keeps others from committing, sweeping and deleting it."""
        check_tree(self._layout.folder)
        check_file(self._layout.lock)
        with FileLock(self._layout.lock):
            if text_at_now(self._layout, "run.json") != contents.configuration:
                with suppress(OSError):
                    if not os.path.lexists(self._layout.manifest):
                        self._layout.lock.unlink()  # taking the lock made it anew
                raise StoreError(
                    f"run {self._layout.run_id} was deleted while it was being copied",
                    "the same command copies it again",
                )
            yield


def text_at_now(layout: RunLayout, path: str) -> str | None:
    """A manifest of a run as it is now."""
    try:
        check_inside(layout.folder, path)
        return (layout.folder / path).read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


@contextmanager
def _explained(store: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot write the store {store}: {error.filename or store}: {error.strerror}",
            "what was copied stays; the same command goes on once there is room, or the right "
            "to write",
        ) from error
