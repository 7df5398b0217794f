"""Whether the files that manifests name are there, plain, and as long as they were."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import FileEntry
from moedb.store.containment import check_inside, plain_files


def check_present(folder: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Check that committed files are there, by listing the folders that they are in.

    Nothing in these folders may be a link, so that who may read them reads nothing else.

    Parameters
    ----------
    folder
        The run's.
    paths
        The files, within it.

    Returns
    -------
    tuple of str
        Their folders, within the run's.

    Raises
    ------
    StoreDamagedError
        If one is missing or no plain file, or there is a link beside it.
    """
    listed: dict[str, set[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        names = listed.get(parent)
        if names is None:
            check_inside(folder, path)
            names = listed[parent] = plain_files(folder / parent)
        if name not in names and not check_inside(folder, path):
            raise _missing(folder / path)
    return tuple(listed)


def check_whole(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Check many committed files as :func:`check_committed` does, each folder once."""
    for _, error in faults_among(folder, entries):
        raise error


def faults_among(
    folder: Path, entries: Iterable[FileEntry]
) -> Iterator[tuple[FileEntry, StoreDamagedError]]:
    """The committed files that are not there, or not as long as they were, and what is wrong."""
    root, checked = str(folder), set()
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        try:
            if parent not in checked:
                check_inside(folder, entry.path)
                checked.add(parent)
            status = _status(f"{root}/{entry.path}")
            if status is None or status.st_size != entry.n_bytes or not S_ISREG(status.st_mode):
                check_committed(folder, entry)
        except StoreDamagedError as error:
            yield entry, error


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def check_committed(folder: Path, entry: FileEntry) -> None:
    """Check that a committed file is there, within the run, and as long as it was.

    Raises
    ------
    StoreDamagedError
        If it isn't.
    """
    path = folder / entry.path
    if not check_inside(folder, entry.path):
        raise _missing(path)
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:  # deleted since
        raise _missing(path) from error
    if found != entry.n_bytes:
        raise StoreDamagedError(f"{path} has {found} bytes, committed were {entry.n_bytes}")


def _missing(path: Path) -> StoreDamagedError:
    return StoreDamagedError(f"the committed file {path} is missing")
