"""Files that are either whole and on the disk, or not there."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def sync_directory(folder: Path) -> None:
    """Make the entries of ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make everything in ``folder``, and its entries, durable."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_directory(path)
        else:
            sync_file(path)
    sync_directory(folder)


def sync_file(path: Path) -> None:
    """Make the content of ``path`` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_temporary(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def create_exclusively(path: Path, text: str) -> bool:
    """Write ``text`` to ``path``, whole and durable, unless the file exists.

    Returns
    -------
    bool
        True for the one caller that created the file, False where it was there already.
    """
    temporary = _write_temporary(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def write_over(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole and durable, in the place of what is there."""
    temporary = _write_temporary(path, text)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def move_into(folder: Path, files: Mapping[str, Path]) -> None:
    """Move files, synced already, into ``folder``, durably; folders are made as needed.

    Parameters
    ----------
    folder
        Where to.
    files
        For each path within ``folder`` the file that goes there.
    """
    for relative, source in files.items():
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    # Of folders that were there before, too: who made them may have been stopped before this.
    parents = {folder / parent for relative in files for parent in Path(relative).parents}
    for parent in sorted(parents, key=lambda parent: (-len(parent.parts), parent)):
        sync_directory(parent)


def make_directories(folder: Path) -> None:
    """Make ``folder`` and its missing parents, each durable in its own parent."""
    missing = []
    current = folder
    while not current.is_dir():
        missing.append(current)
        current = current.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of the bytes of ``path``, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """SHA-256 of the bytes of a file that holds ``text``, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_json(content: object) -> str:
    """SHA-256 of ``content`` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
