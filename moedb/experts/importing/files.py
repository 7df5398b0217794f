"""Reading what was given: files of a size, and those of a folder; no link in it is followed."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moedb.errors import UsageError, first_line

MOST_BYTES, MOST_FILES = 1 << 30, 200_000
"""Of all files together."""

MOST_DEPTH = 4
"""Folders in a folder that are looked into."""


@dataclass(frozen=True)
class GivenFile:
    """A file that was given.

    Attributes
    ----------
    name
        Its name; within a folder that was given its path there.
    content
        Its bytes.
    """

    name: str
    content: bytes

    @cached_property
    def text(self) -> str:
        """The content as UTF-8.

        Raises
        ------
        UsageError
            If it is none.
        """
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self.name} is no text in UTF-8: {error.reason} at byte {error.start}"
            ) from error

    @cached_property
    def json(self) -> Any:
        """The content as one JSON value; None where it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    def lines(self) -> Iterator[tuple[str, str]]:
        """The lines that are not empty, each with where it stands."""
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.strip():
                yield f"{self.name}, line {number}", line

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The JSON objects of the lines.

        Raises
        ------
        UsageError
            If a line holds none.
        """
        for where, line in self.lines():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where}: no JSON: {first_line(error)}") from error
            if not isinstance(found, dict):
                raise UsageError(f"{where}: no JSON object")
            yield where, found


def read_given(paths: Sequence[Path]) -> list[GivenFile]:
    """Read files, and all files of folders.

    Raises
    ------
    UsageError
        If there is no such file, it is none that can be read, or they are too large.
    """
    left, found = MOST_BYTES, []
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file {path}")
        places = _in_folder(path) if path.is_dir() else iter([(path.name, path)])
        for name, place in places:
            content = _read(place, left)
            left -= len(content)
            found.append(GivenFile(name, content))
            if len(found) > MOST_FILES:
                raise UsageError(f"{path} has more than {MOST_FILES:,} files")
    if not found:
        raise UsageError(f"no files in {', '.join(map(str, paths))}")
    return found


def sha256_of(files: Sequence[GivenFile]) -> str:
    """The SHA-256 of a file, or of the names and hashes of several."""
    hashes = [hashlib.sha256(file.content).hexdigest() for file in files]
    if len(files) == 1:
        return hashes[0]
    lines = sorted(f"{file.name}:{digest}\n" for file, digest in zip(files, hashes, strict=True))
    return hashlib.sha256("".join(lines).encode(errors="replace")).hexdigest()


def _in_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    waiting = [(folder, "", 0)]
    while waiting:
        place, prefix, depth = waiting.pop()
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            name = f"{prefix}{entry.name}"
            if entry.is_symlink():
                raise UsageError(
                    f"{entry.path} is a link; links in a folder are not followed",
                    "give the folder that it leads to",
                )
            if entry.is_dir():
                if depth < MOST_DEPTH:
                    waiting.append((Path(entry.path), f"{name}/", depth + 1))
            elif entry.is_file():
                yield name, Path(entry.path)


def _read(path: Path, left: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UsageError(f"{path} is no plain file")
            content = file.read(left + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > left:
        raise UsageError(f"{path}: more than {MOST_BYTES / 1e9:,.1f} GB in all")
    return content
