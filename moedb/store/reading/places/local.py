"""A run's files in a folder of this machine."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import FileEntry
from moedb.store.containment import check_inside
from moedb.store.files import sha256_of_file
from moedb.store.layout import ARRAYS
from moedb.store.reading.committed_files import check_present, check_whole, faults_among

BLOCK_BYTES = 1 << 22


class LocalPlace:
    """A run's folder, in which there are no links.

    Parameters
    ----------
    folder
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def root(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def n_readers(self) -> int:
        """One, as for a disk."""
        return 1

    def check_present(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Check that files are there, by listing their folders, and return these."""
        return check_present(self._folder, paths)

    def check_whole(self, entries: Iterable[FileEntry]) -> None:
        """Check that files are there, plain, and as long as they were."""
        check_whole(self._folder, entries)

    def faults_among(
        self, entries: Iterable[FileEntry]
    ) -> Iterator[tuple[FileEntry, StoreDamagedError]]:
        """Those of the files that are not there, plain, and as long as they were."""
        return faults_among(self._folder, entries)

    def is_there(self, path: str) -> bool:
        """Whether a file is there now."""
        return os.path.lexists(f"{self._folder}/{path}")

    def sha256(self, path: str) -> str:
        """The hash of a file's bytes."""
        return sha256_of_file(self._folder / path)

    def blocks(self, path: str, n_bytes: int) -> Iterator[bytes]:
        """The bytes of a file, some at a time."""
        check_inside(self._folder, path)
        with (self._folder / path).open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block

    def arrays(self) -> Path:
        """The folder of the arrays."""
        return self._folder / ARRAYS
