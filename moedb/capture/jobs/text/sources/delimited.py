"""CSV and TSV files, with the names of the columns on the first line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moedb.capture.jobs.text.sources.rows import shown
from moedb.errors import DatasetError

LARGEST_FIELD = 1 << 30
"""Characters of a field at most; Python's own limit is 131,072, less than a long document."""


def delimited_columns(path: Path) -> tuple[str, ...]:
    """The file's columns.

    Raises
    ------
    DatasetError
        If it is empty, names a column twice, or is not text.
    """
    for _, fields in _records(path):
        twice = sorted({name for name in fields if fields.count(name) > 1})
        if twice:
            raise DatasetError(f"{path} names the column {twice[0]!r} twice; expected once")
        return tuple(fields)
    raise DatasetError(f"{path} is empty; expected a line with the names of the columns")


def delimited_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read rows: where each stands, and its values. An empty field is null.

    Raises
    ------
    DatasetError
        If a row has more or fewer fields than the first line, or the file is malformed.
    """
    names: list[str] | None = None
    for place, fields in _records(path):
        if names is None:
            names = fields
            continue
        if len(fields) != len(names):
            raise DatasetError(
                f"{place} has {len(fields)} fields, the first line has {len(names)}: "
                f"{shown(fields)}",
                'a field that holds the delimiter or a line break stands in quotes: "a, b"',
            )
        yield place, {n: field or None for n, field in zip(names, fields, strict=True)}


def _records(path: Path) -> Iterator[tuple[str, list[str]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    previous = csv.field_size_limit(LARGEST_FIELD)
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            for fields in reader:
                # A record may span lines; it is named by its first.
                first, line = line + 1, reader.line_num
                if fields:
                    yield f"{path.name}, line {first}", fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path.name}, after line {line}: {error}", "expected UTF-8 with quotes in pairs"
        ) from error
    finally:
        csv.field_size_limit(previous)
