"""Files that appear whole or not at all, several at once."""

import errno
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from moedb.errors import MoedbError, UsageError
from moedb.store.files import sync_directory

logger = logging.getLogger(__name__)

_REQUEST_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)


def check_folder(path: Path) -> None:
    """Raise UsageError if no file can be made at ``path``."""
    folder = path.parent
    if not folder.exists():
        raise UsageError(f"cannot write {path}: there is no folder {folder}", f"mkdir -p {folder}")
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: {folder} is a file")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", "name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: no permission to write in {folder}")


def write_together(contents: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write several files so that a failure leaves all of them as they were.

    Each is written in full and synced beside its place, and only then all are moved there. A
    symbolic link stays, and what it points to is replaced.

    Parameters
    ----------
    contents
        What is in each file, whole or in pieces; the files are written in this order.

    Raises
    ------
    UsageError
        If a place cannot be written to.
    MoedbError
        If writing failed otherwise, such as on a full disk.
    """
    places = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    staged: dict[Path, Path] = {}
    before: dict[Path, Path | None] = {}
    try:
        for place, content in places.items():
            check_folder(place)
            staged[place] = _beside(place)
            _write_synced(staged[place], content)
        for place, temporary in staged.items():
            kept = None
            if place.exists():
                kept = _kept_copy(place)
            before[place] = kept
            temporary.replace(place)
    except BaseException as error:
        _put_back(before, staged)
        if isinstance(error, OSError) and not isinstance(error, MoedbError):
            raise _write_error(next(iter(contents)), error) from error
        raise
    finally:
        for temporary in [*staged.values(), *(kept for kept in before.values() if kept)]:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {place.parent for place in places}:
        _sync_folder(folder)


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name[:200]}.{secrets.token_hex(6)}.tmp")


def _kept_copy(place: Path) -> Path:
    kept = _beside(place)
    try:
        kept.hardlink_to(place)
    except OSError:  # not every file system has links
        shutil.copy2(place, kept)
    return kept


def _write_synced(path: Path, content: bytes | Iterable[bytes]) -> None:
    with path.open("xb") as file:
        for piece in [content] if isinstance(content, bytes) else content:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # some file systems cannot sync a folder; the files themselves are synced
    with suppress(OSError):
        sync_directory(folder)


def _put_back(before: Mapping[Path, Path | None], staged: Mapping[Path, Path]) -> None:
    """Undo the moves made so far: a place whose staged file is gone was replaced."""
    for place, kept in before.items():
        if staged[place].exists():
            continue
        try:
            if kept is None:
                place.unlink(missing_ok=True)
            else:
                kept.replace(place)
        except OSError:
            logger.exception("could not put %s back", place)


def _write_error(path: Path, error: OSError) -> MoedbError:
    kind = UsageError if error.errno in _REQUEST_ERRORS else MoedbError
    return kind(f"cannot write {path}: {error.strerror or error}")
