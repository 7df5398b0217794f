"""Plain text files: each a document, or each line one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moedb.errors import DatasetError

TEXT = "text"


def plain_columns(path: Path) -> tuple[str, ...]:
    """The one column there is."""
    return (TEXT,)


def file_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read the file as one row.

    Raises
    ------
    DatasetError
        If it is not UTF-8.
    """
    try:
        yield path.name, {TEXT: path.read_text(encoding="utf-8-sig")}
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8: {error}") from error


def line_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read each line that is not blank as a row.

    Raises
    ------
    DatasetError
        If the file is not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{path.name}, line {number}", {TEXT: line.rstrip("\r\n")}
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, after line {number}: not text in UTF-8: {error}") from error
