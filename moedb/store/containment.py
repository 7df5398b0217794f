"""Nothing in a run leads out of it: plain files and folders, and no links.

A store may come from anyone. A link in it would have a reader read, a writer write and a sweep
delete what is not the store's. The store's own folder may be reached by a link, which its user
made.
"""

import os
import stat
from pathlib import Path

from moedb.errors import StoreDamagedError

_MOUNT_POINT = 0xA0000003  # the reparse tag of a junction, which only Windows has

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


def check_folder(path: Path) -> bool:
    """Check that ``path``, if it is there, is a folder and not a link to one.

    Returns
    -------
    bool
        Whether it is there.

    Raises
    ------
    StoreDamagedError
        If it is anything else, or cannot be looked at.
    """
    return _check(path, stat.S_IFDIR)


def check_file(path: str | Path) -> bool:
    """Check that ``path``, if it is there, is a file and not a link to one.

    Returns
    -------
    bool
        Whether it is there.

    Raises
    ------
    StoreDamagedError
        If it is anything else, or cannot be looked at.
    """
    return _check(path, stat.S_IFREG)


def check_inside(folder: Path, relative: str) -> bool:
    """Check that no link leads out of ``folder`` on the way to the file ``relative`` in it.

    Returns
    -------
    bool
        Whether the file is there.

    Raises
    ------
    StoreDamagedError
        If a part of the way is not a plain folder, or the file not a plain file.
    """
    path = folder
    *folders, name = Path(relative).parts
    for part in folders:
        path = path / part
        if not check_folder(path):
            return False
    return check_file(path / name)


def plain_files(folder: Path) -> set[str]:
    """The names of the plain files in ``folder``; none where it is not there.

    Raises
    ------
    StoreDamagedError
        If anything in it, however deep, is neither a plain file nor a folder.
    """
    if not check_folder(folder):
        return set()
    try:
        with os.scandir(folder) as entries:
            kinds = {entry.name: _is_plain_file(entry) for entry in entries}
    except FileNotFoundError:  # of another writer, who has just removed it
        return set()
    except OSError as error:
        raise StoreDamagedError(f"cannot read {folder}: {error.strerror}") from error
    for name in sorted(name for name, is_plain in kinds.items() if not is_plain):
        check_tree(folder / name)
    return {name for name, is_plain in kinds.items() if is_plain}


def check_tree(folder: Path) -> None:
    """Check that ``folder``, if it is there, holds plain files and folders only, however deep.

    Raises
    ------
    StoreDamagedError
        At the first thing that is neither.
    """
    plain_files(folder)


def read_text(path: str | Path) -> str:
    """Read a plain file of the store.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If it is not there.
    StoreDamagedError
        If it is not a plain file, or cannot be read.
    """
    try:
        check_file(path)
        # as it is: a changed end of a line is a change
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read().decode()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"cannot read {path}: {error}") from error


def is_link(path: Path) -> bool:
    """Whether ``path`` is a link, wherever it leads."""
    try:
        return _kind(path.lstat()) == stat.S_IFLNK
    except OSError:
        return False


def _is_plain_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _kind(status: os.stat_result) -> int:
    if getattr(status, "st_reparse_tag", 0) == _MOUNT_POINT:
        return stat.S_IFLNK
    return stat.S_IFMT(status.st_mode)


def _check(path: str | Path, expected: int) -> bool:
    try:
        kind = _kind(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreDamagedError(f"cannot read {path}: {error.strerror}") from error
    if kind == expected:
        return True
    found = _KINDS.get(kind, "neither a file nor a folder")
    if kind in (stat.S_IFDIR, stat.S_IFREG):
        raise StoreDamagedError(f"{path} is {found}, expected was {_KINDS[expected]}")
    if kind == stat.S_IFLNK:
        found += _target(Path(path))
    raise StoreDamagedError(f"{path} is {found}; a run holds plain files and folders only")


def _target(path: Path) -> str:
    try:
        return f" to {str(path.readlink())!r}"
    except OSError:
        return ""
