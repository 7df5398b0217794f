"""Copying to object storage: every object is created, and none replaced.

Who creates a manifest first wins it. An object that is there already is compared: by its size where
its name is one of a single attempt to write it, else by its bytes.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, TypeVar

from moedb.errors import MoedbError, StoreError, StoreNotFoundError, UsageError
from moedb.schemas.manifests import FileEntry, StoreManifest
from moedb.store.copying.contents import Piece, RunContents
from moedb.store.copying.target import Advance, new_files
from moedb.store.copying.threads import each_in_threads
from moedb.store.layout import STORE_MANIFEST
from moedb.store.reading.listing import read_store
from moedb.store.reading.places.file_systems import cannot_reach, checked_url, file_system
from moedb.store.reading.places.remote_store import RUN_NAME, RemoteStore
from moedb.store.reading.snapshot import RunSnapshot, take_snapshot

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LARGE = 1 << 27
"""Bytes from which on files are held one at a time."""

WAITS = (0.5, 2.0, 6.0)
"""Seconds before an object is asked for, or written, again."""

Found = TypeVar("Found")


class RemoteTarget:
    """A store on object storage.

    Parameters
    ----------
    url
        Its address.
    """

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        if self.url.startswith("hf://"):
            raise UsageError(
                "runs are not copied to the hub of Hugging Face, which has no way to create a "
                "file that nobody else has",
                f"moedb publish RUN --to {self.url}",
            )
        self._files = file_system(self.url)

    @property
    def title(self) -> str:
        """Its address."""
        return self.url

    def format(self) -> StoreManifest | None:
        """The version of its format; None where there is no store yet."""
        try:
            store = RemoteStore(self.url, runs=())
        except StoreNotFoundError:
            if patiently(self.url, lambda: _is_empty(self._files, self.url)):
                return None
            if patiently(self.url, lambda: self._files.exists(f"{self.url}/{STORE_MANIFEST}")):
                return self.format()  # somebody has just made one
            raise StoreError(
                f"{self.url} is neither empty nor a moedb store", "name another prefix"
            ) from None
        with store.addressed():
            return read_store(store.folder)

    def prepare(self, manifest: StoreManifest) -> None:
        """Make a store of it if it is none, or raise the minor version of one."""
        found = self.format()
        place = f"{self.url}/{STORE_MANIFEST}"
        content = manifest.to_json().encode()
        if found is None:
            create(self._files, place, content)
        elif found.minor < manifest.minor:
            patiently(place, partial(self._files.pipe_file, place, content))

    def names(self) -> dict[str, str]:
        """The names that were given to runs there, by run."""
        runs = take_snapshot(RemoteStore(self.url)).runs.values()
        return {run.run_id: run.named.name for run in runs if run.named.name is not None}

    def place(self, run_id: str) -> "RemoteRun":
        """A run there, to look at it."""
        return self._place(run_id, False)

    @contextmanager
    def opened(self, run_id: str, take_over: bool) -> Iterator["RemoteRun"]:
        """Open a run to copy it there."""
        yield self._place(run_id, take_over)

    def _place(self, run_id: str, take_over: bool) -> "RemoteRun":
        if not RUN_NAME.fullmatch(run_id):
            raise StoreError(f"a run cannot be called {run_id!r} on object storage")
        return RemoteRun(self._files, self.url, run_id, take_over)


class RemoteRun:
    """A run on object storage while it is copied there."""

    def __init__(self, files: "AbstractFileSystem", url: str, run_id: str, take_over: bool) -> None:
        self._files, self._url, self._run_id = files, url, run_id
        self._place, self._takes_over = f"{url}/runs/{run_id}", take_over
        self._sizes: dict[str, int] | None = None
        self._large = BoundedSemaphore()

    def there(self) -> RunSnapshot | None:
        """What readers see of the run now."""
        self._sizes = None
        found = take_snapshot(RemoteStore(self._url, runs=[self._run_id]))
        return found.run(self._run_id) if found.runs or found.damaged else None

    def missing(self, contents: RunContents, entries: Iterable[FileEntry]) -> list[FileEntry]:
        """Of some files those that are not there as long as they should be."""
        sizes = self._listed()
        return [entry for entry in entries if sizes.get(entry.path) != entry.n_bytes]

    def done(self) -> None:
        """Nothing is left over."""

    def publish(self, contents: RunContents, name: str | None, advance: Advance) -> bool:
        """Bring all files, then the manifests, then what has readers see them."""
        others = self._bring(contents, contents.files.values(), advance)
        texts = {**contents.metadata, **{piece.path: piece.text for piece in contents.pieces}}
        if contents.head_path is not None and contents.head is not None:
            texts[contents.head_path] = contents.head
        others += self._create_all(texts, replaces=self._takes_over)
        if name is not None and not others:
            self._create("name.json", name, replaces=True)
        if others and self.there() is None:
            raise StoreError(
                f"at {self._place} is a part of another copy of the run: {sorted(others)[0]}",
                "finish that copy, or have this one take its place: --take-over",
            )
        return not others and self._create("run.json", contents.configuration)

    def begin(self, configuration: str) -> bool:
        """Write the run's configuration."""
        return self._create("run.json", configuration)

    def commit(self, contents: RunContents, piece: Piece, advance: Advance) -> bool:
        """Bring the files of a unit, then its manifest."""
        if self._create_all(contents.metadata):
            raise StoreError(
                f"the arrays at {self._place} were made by another version of zarr",
                "copy to another store",
            )
        place = f"{self._place}/{piece.path}"
        if self._takes_over and patiently(place, lambda: self._files.exists(place)):
            return False
        if self._bring(contents, piece.files, advance):
            return False
        return self._create(piece.path, piece.text)

    def finish(
        self,
        contents: RunContents,
        pieces: tuple[Piece, ...],
        there: RunSnapshot,
        advance: Advance,
    ) -> bool:
        """Bring what a newer head names, then the head."""
        others = self._bring(contents, new_files(pieces, there), advance)
        texts = {**contents.metadata, **{piece.path: piece.text for piece in pieces}}
        others += self._create_all(texts)
        if others:
            raise StoreError(
                f"at {self._place} is a part of another copy of the run: {sorted(others)[0]}",
                "finish that copy, or have this one take its place: --take-over",
            )
        now = self.there()
        if now is None or now.head != there.head or contents.head_path is None:
            return False
        return self._create(contents.head_path, contents.head or "")

    def _listed(self) -> dict[str, int]:
        if self._sizes is None:
            root = self._files._strip_protocol(self._place).rstrip("/")
            found = patiently(self._place, lambda: self._files.find(self._place, detail=True))
            self._sizes = {
                name.removeprefix(f"{root}/"): int(entry["size"] or 0)
                for name, entry in found.items()
            }
        return self._sizes

    def _bring(
        self, contents: RunContents, entries: Iterable[FileEntry], advance: Advance
    ) -> list[str]:
        """Bring files; return those that are there with other bytes."""

        def bring(entry: FileEntry) -> str | None:
            there = self._bring_one(contents, entry)
            advance(entry.n_bytes)
            return None if there else entry.path

        return [path for path in each_in_threads(bring, entries) if path is not None]

    def _bring_one(self, contents: RunContents, entry: FileEntry) -> bool:
        place = f"{self._place}/{entry.path}"
        size = self._listed().get(entry.path)
        if size == entry.n_bytes and entry.path.startswith("tables/"):
            return True  # its name is of one attempt to write it
        if size is not None and not self._takes_over:
            return size == entry.n_bytes and self._sha256(place, size) == entry.sha256
        if size == entry.n_bytes and self._sha256(place, size) == entry.sha256:
            return True
        if entry.n_bytes < LARGE:
            return self._write(contents, entry, place)
        with self._large:
            return self._write(contents, entry, place)

    def _write(self, contents: RunContents, entry: FileEntry, place: str) -> bool:
        content = b"".join(contents.blocks(entry))
        if self._takes_over:
            patiently(place, partial(self._files.pipe_file, place, content))
            return True
        return create(self._files, place, content)

    def _sha256(self, place: str, size: int) -> str:
        found = hashlib.sha256()
        for start in range(0, size, LARGE):
            end = min(start + LARGE, size)
            found.update(
                patiently(place, partial(self._files.cat_file, place, start=start, end=end))
            )
        return found.hexdigest()

    def _create_all(self, texts: dict[str, str], replaces: bool = False) -> list[str]:
        """Create manifests, heads last; return those that are there with other bytes."""

        def make(item: tuple[str, str]) -> str | None:
            return None if self._create(*item, replaces) else item[0]

        heads = {path: text for path, text in texts.items() if path.startswith("heads/")}
        rest = {path: text for path, text in texts.items() if path not in heads}
        others = [path for path in each_in_threads(make, rest.items()) if path is not None]
        return others or [path for path in map(make, heads.items()) if path is not None]

    def _create(self, path: str, text: str, replaces: bool = False) -> bool:
        content, place = text.encode(), f"{self._place}/{path}"
        if replaces and path in self._listed():
            patiently(place, partial(self._files.pipe_file, place, content))
            return True
        return create(self._files, place, content)


def create(files: "AbstractFileSystem", place: str, content: bytes) -> bool:
    """Write an object that is not there.

    Returns
    -------
    bool
        Whether the object now has this content; False where it has another.
    """

    def write() -> bool:
        try:
            files.pipe_file(place, content, mode="create")
        except FileExistsError:
            # such as one that was written, and whose answer was lost
            found: bytes = files.cat_file(place)
            return found == content
        return True

    return patiently(place, write)


def patiently(place: str, call: Callable[[], Found]) -> Found:
    """Call something that reaches for the network, again and again where that fails.

    Raises
    ------
    StoreError
        If it fails to the last.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except MoedbError:
            raise
        except Exception as error:
            if wait is None or isinstance(error, PermissionError):
                raise cannot_reach(place, error) from error
            time.sleep(wait)
    raise AssertionError


def _is_empty(files: "AbstractFileSystem", url: str) -> bool:
    try:
        return not files.ls(url, detail=True)
    except FileNotFoundError:
        return True
