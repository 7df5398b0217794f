"""What readers ask of the place where a run's committed files are."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import FileEntry


class Place(Protocol):
    """Where a run's committed files are."""

    @property
    def root(self) -> str:
        """What the names of its files begin with, for engines; without a slash at the end."""
        ...

    @property
    def n_readers(self) -> int:
        """How many of its files are best read at a time."""
        ...

    def check_present(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Check that files are there, and return the folders that they are in.

        Raises
        ------
        StoreDamagedError
            If one is missing, or what is there is more than plain files.
        """
        ...

    def check_whole(self, entries: Iterable[FileEntry]) -> None:
        """Check that files are there, and as long as they were.

        Raises
        ------
        StoreDamagedError
            If one isn't.
        """
        ...

    def faults_among(
        self, entries: Iterable[FileEntry]
    ) -> Iterator[tuple[FileEntry, StoreDamagedError]]:
        """Those of the files that are not there, or not as long as they were, and what is wrong."""
        ...

    def is_there(self, path: str) -> bool:
        """Whether a file is there; on object storage when its folder was listed."""
        ...

    def sha256(self, path: str) -> str:
        """The hash of a file's bytes, which are read."""
        ...

    def blocks(self, path: str, n_bytes: int) -> Iterator[bytes]:
        """The bytes of a file of so many, some at a time."""
        ...

    def arrays(self) -> Any:
        """The Zarr group of the arrays, as zarr is told where it is."""
        ...
