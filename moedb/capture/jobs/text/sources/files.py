"""Local text data: a file, or a folder of files of one kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moedb.capture.jobs.text.sources.conllu import conllu_rows
from moedb.capture.jobs.text.sources.delimited import delimited_columns, delimited_rows
from moedb.capture.jobs.text.sources.jsonl import jsonl_rows
from moedb.capture.jobs.text.sources.parquet import parquet_columns, parquet_rows
from moedb.capture.jobs.text.sources.plain import file_rows, line_rows, plain_columns
from moedb.capture.jobs.text.sources.rows import Row, Source
from moedb.errors import DatasetError, UsageError
from moedb.store.files import sha256_of_file

LOCAL_SPLIT = "text"
"""The split of examples that come from files."""


@dataclass(frozen=True)
class FileFormat:
    """How files of a kind are read.

    Attributes
    ----------
    name
        The kind.
    rows
        Reads a file's rows: where each stands, and its values.
    columns
        Reads a file's columns; None where only the rows tell.
    """

    name: str
    rows: Callable[[Path, Sequence[str]], Iterator[tuple[str, Mapping[str, Any]]]]
    columns: Callable[[Path], tuple[str, ...]] | None = None


_JSONL = FileFormat("JSON lines", jsonl_rows)
FORMATS: Mapping[str, FileFormat] = {
    ".parquet": FileFormat("Parquet", parquet_rows, parquet_columns),
    ".jsonl": _JSONL,
    ".json": _JSONL,
    ".csv": FileFormat("CSV", delimited_rows, delimited_columns),
    ".tsv": FileFormat("TSV", delimited_rows, delimited_columns),
    ".txt": FileFormat("plain text", file_rows, plain_columns),
    ".conllu": FileFormat("CoNLL-U", conllu_rows),
}
LINES = FileFormat("lines of plain text", line_rows, plain_columns)


@dataclass(frozen=True)
class FileSource(Source):
    """Files of one kind, read one after the other.

    Attributes
    ----------
    path
        The file or folder that was named.
    files
        The files.
    format
        Their kind.
    passed_over
        Files of the folder that are of no kind that is read.
    """

    path: Path
    files: tuple[Path, ...]
    format: FileFormat
    passed_over: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's or folder's name."""
        return self.path.resolve().name

    @property
    def split(self) -> str:
        """``text``: files have no splits."""
        return LOCAL_SPLIT

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The files' names and hashes."""
        hashes = [{"name": file.name, "sha256": sha256_of_file(file)} for file in self.files]
        return {"format": self.format.name, "files": hashes}

    @property
    def notes(self) -> tuple[str, ...]:
        """Which files are not read."""
        if not self.passed_over:
            return ()
        return (f"not read, for their endings: {', '.join(self.passed_over[:5])}",)

    def columns(self) -> tuple[str, ...] | None:
        """The columns that every file has, where they are known before reading."""
        if self.format.columns is None:
            return None
        found = [self.format.columns(file) for file in self.files]
        return tuple(name for name in found[0] if all(name in other for other in found))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read the rows of all files."""
        number = 0
        for file in self.files:
            for place, values in self.format.rows(file, columns):
                yield Row(number, place, values)
                number += 1


def open_files(path: Path, *, lines: bool = False) -> FileSource:
    """Find out what kind of files ``path`` is, or holds.

    Parameters
    ----------
    path
        A file, or a folder of files of one kind; those in folders below it are not read.
    lines
        Whether each line of a plain text file is a document.

    Raises
    ------
    DatasetError
        If no file is of a kind that is read, or the folder holds several kinds.
    UsageError
        If ``lines`` is asked of files that are not plain text.
    """
    kinds = ", ".join(FORMATS)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        files = tuple(file for file in inside if file.suffix.lower() in FORMATS)
        if not files:
            raise DatasetError(f"the folder {path} holds no text data; files end in {kinds}")
        passed_over = tuple(file.name for file in inside if file not in set(files))
    else:
        files, passed_over = (path,), ()
        if path.suffix.lower() not in FORMATS:
            ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
            raise DatasetError(f"{path} {ending}; files of text data end in {kinds}")
    found = {FORMATS[file.suffix.lower()].name: file for file in files}
    if len(found) > 1:
        raise DatasetError(
            f"the folder {path} holds several kinds of files: "
            + ", ".join(f"{name} ({file.name})" for name, file in found.items()),
            f"name one file, such as --dataset {files[0]}, or a folder with one kind",
        )
    format_ = FORMATS[files[0].suffix.lower()]
    if lines and format_ is not FORMATS[".txt"]:
        raise UsageError(f"--lines is for plain text (.txt); {files[0].name} is {format_.name}")
    return FileSource(path, files, LINES if lines else format_, passed_over)
