"""A run's files on object storage."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import FileEntry
from moedb.store.layout import ARRAYS
from moedb.store.reading.places.file_systems import cannot_reach, options_of
from moedb.store.reading.places.remote_store import RemoteStore

BLOCK_BYTES = 1 << 25


class RemotePlace:
    """A run on object storage, where there are no folders and no links.

    Parameters
    ----------
    store, run_id
        The store, and the run.
    """

    def __init__(self, store: RemoteStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    @property
    def root(self) -> str:
        """The run's address."""
        return f"{self._store.url}/runs/{self._run_id}"

    @property
    def n_readers(self) -> int:
        """Several, as each waits for the server."""
        return 8

    def check_present(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Check that files were listed, and return their folders."""
        folders: dict[str, None] = {}
        for path in paths:
            if self._size(path) is None:
                raise StoreDamagedError(f"the committed file {self.root}/{path} is missing")
            folders[path.rpartition("/")[0]] = None
        return tuple(folders)

    def check_whole(self, entries: Iterable[FileEntry]) -> None:
        """Check that files were listed, as long as they were."""
        for _, error in self.faults_among(entries):
            raise error

    def faults_among(
        self, entries: Iterable[FileEntry]
    ) -> Iterator[tuple[FileEntry, StoreDamagedError]]:
        """Those of the files that were not listed, or not as long as they were."""
        for entry in entries:
            found, place = self._size(entry.path), f"{self.root}/{entry.path}"
            if found is None:
                yield entry, StoreDamagedError(f"the committed file {place} is missing")
            elif found != entry.n_bytes:
                what = f"{place} has {found} bytes, committed were {entry.n_bytes}"
                yield entry, StoreDamagedError(what)

    def is_there(self, path: str) -> bool:
        """Whether a file was there when its folder was listed."""
        return self._size(path) is not None

    def sha256(self, path: str) -> str:
        """The hash of a file's bytes."""
        found = hashlib.sha256()
        for block in self.blocks(path, self._size(path) or 0):
            found.update(block)
        return found.hexdigest()

    def blocks(self, path: str, n_bytes: int) -> Iterator[bytes]:
        """The bytes of a file of so many, a request for each block."""
        place = f"{self.root}/{path}"
        for start in range(0, n_bytes, BLOCK_BYTES):
            end = min(start + BLOCK_BYTES, n_bytes)
            try:
                block: bytes = self._store.file_system.cat_file(place, start=start, end=end)
            except FileNotFoundError:
                raise
            except Exception as error:
                raise cannot_reach(place, error) from error
            yield block

    def arrays(self) -> Any:
        """A store of zarr's over the arrays; their metadata must have been fetched."""
        from moedb.store.reading.places.remote_arrays import RemoteArrays

        folder = self._store.folder / "runs" / self._run_id / ARRAYS
        options = options_of(self._store.url)
        return RemoteArrays(
            f"{self.root}/{ARRAYS}", options, folder, lambda key: self._size(f"{ARRAYS}/{key}")
        )

    def _size(self, path: str) -> int | None:
        return self._store.sizes(self._run_id, _part(path)).get(path)


def _part(path: str) -> str:
    """The folder of a run that is listed to find a file: of arrays one at a time."""
    first, *others = path.split("/")
    return "/".join([first, *others[:2]]) if first == ARRAYS else first
