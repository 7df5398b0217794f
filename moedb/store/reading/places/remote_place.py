"""A run's files on object storage."""

import hashlib
from collections.abc import Iterable
from typing import Any

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import FileEntry
from moedb.store.layout import ARRAYS
from moedb.store.reading.places.file_systems import zarr_store
from moedb.store.reading.places.remote_store import RemoteStore


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
        for entry in entries:
            found = self._size(entry.path)
            if found is None:
                raise StoreDamagedError(f"the committed file {self.root}/{entry.path} is missing")
            if found != entry.n_bytes:
                raise StoreDamagedError(
                    f"{self.root}/{entry.path} has {found} bytes, committed were {entry.n_bytes}"
                )

    def is_there(self, path: str) -> bool:
        """Whether a file is there now."""
        return bool(self._store.file_system.exists(f"{self.root}/{path}"))

    def sha256(self, path: str) -> str:
        """The hash of a file's bytes."""
        found = hashlib.sha256()
        with self._store.file_system.open(f"{self.root}/{path}", "rb") as stream:
            while block := stream.read(1 << 22):
                found.update(block)
        return found.hexdigest()

    def arrays(self) -> Any:
        """A store of zarr's over the arrays."""
        return zarr_store(f"{self.root}/{ARRAYS}")

    def _size(self, path: str) -> int | None:
        return self._store.sizes(self._run_id, path.partition("/")[0]).get(path)
