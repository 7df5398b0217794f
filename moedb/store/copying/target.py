"""What a destination of copies does."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from moedb.schemas.manifests import FileEntry, StoreManifest
from moedb.store.copying.contents import Piece, RunContents
from moedb.store.reading.snapshot import RunSnapshot

Advance = Callable[[int], None]
"""Hears of bytes that were copied."""


class RunTarget(Protocol):
    """A run at its destination, while it is copied there."""

    def there(self) -> RunSnapshot | None:
        """What the destination has of the run, as readers see it now; None where they see none.

        Raises
        ------
        StoreError
            If it is damaged there, or cannot be read.
        """
        ...

    def missing(self, contents: RunContents, entries: Iterable[FileEntry]) -> list[FileEntry]:
        """Of some files those that have to be brought, by their sizes."""
        ...

    def done(self) -> None:
        """The run is as it should be: delete what is not needed any more."""
        ...

    def publish(self, contents: RunContents, name: str | None, advance: Advance) -> bool:
        """Bring a complete run; readers see nothing of it before all of it is there.

        Returns
        -------
        bool
            False where the run came to be there meanwhile.
        """
        ...

    def begin(self, configuration: str) -> bool:
        """Make an incomplete run that has no units yet; False where somebody was first."""
        ...

    def commit(self, contents: RunContents, piece: Piece, advance: Advance) -> bool:
        """Bring the files of a unit, then its manifest.

        Returns
        -------
        bool
            False where somebody else committed the unit, or is writing it.
        """
        ...

    def finish(
        self,
        contents: RunContents,
        pieces: tuple[Piece, ...],
        there: RunSnapshot,
        advance: Advance,
    ) -> bool:
        """Bring what a newer head names, in ``pieces``, then the head.

        Returns
        -------
        bool
            False where what is there is no longer ``there``.
        """
        ...


class Target(Protocol):
    """A store that is copied to."""

    @property
    def title(self) -> str:
        """Its folder, or its address."""
        ...

    def format(self) -> StoreManifest | None:
        """The version of its format; None where there is no store yet.

        Raises
        ------
        StoreError
            If something else is there.
        """
        ...

    def prepare(self, manifest: StoreManifest) -> None:
        """Make a store of it if it is none, and say that it may hold what this version has."""
        ...

    def names(self) -> dict[str, str]:
        """The names that were given to runs there, by run."""
        ...

    def place(self, run_id: str) -> RunTarget:
        """A run there, to look at it."""
        ...

    def opened(self, run_id: str, take_over: bool) -> AbstractContextManager[RunTarget]:
        """Open a run to copy it there.

        Raises
        ------
        StoreError
            If another copy of it is under way there.
        """
        ...


def new_files(pieces: Iterable[Piece], there: RunSnapshot) -> list[FileEntry]:
    """The files that manifests name, without those that are committed there already."""
    known = {entry for _, entry in there.entries()}
    found = {entry.path: entry for piece in pieces for entry in piece.files}
    return [entry for entry in found.values() if entry not in known]
