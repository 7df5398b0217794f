"""The formats of the command line: a table, CSV, JSON. They import neither pandas nor pyarrow.

Each takes columns and rows and gives its text in pieces, as the rows come.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from moedb.errors import UsageError
from moedb.queries.results.cells import aligned_lines, json_value, plain_text, shown_text
from moedb.queries.results.formats.spool import CellSpool
from moedb.queries.results.sheets import SheetColumn, TableOptions
from moedb.queries.results.visible import visible

_ROWS_OF_PIECE = 1000

Rows = Iterable[Sequence[Any]]


def table_pieces(
    columns: Sequence[SheetColumn], rows: Rows, options: TableOptions
) -> Iterator[str]:
    """Give a table of plain text."""
    spool = CellSpool(columns, rows, options.precision)
    headers = options.headers(columns)
    widths = list(map(max, spool.widths, map(len, headers)))
    return _lines(aligned_lines(headers, [column.kind for column in columns], widths, spool))


def record_lines(columns: Sequence[SheetColumn], rows: Rows) -> Iterator[str]:
    """Give the lines of rows that stand one below the other, a line for each column."""
    names = [visible(column.name) for column in columns]
    width = max(map(len, names), default=0)
    for number, row in enumerate(rows):
        if number:
            yield ""
        for name, value in zip(names, row, strict=True):
            yield f"{name:>{width}} = {shown_text(value)}"


def csv_pieces(columns: Sequence[SheetColumn], rows: Rows, options: TableOptions) -> Iterator[str]:
    """Give CSV by RFC 4180."""
    names = [column.name for column in columns]
    lines = ([plain_text(value) for value in row] for row in rows)
    piece = [names, *islice(lines, _ROWS_OF_PIECE)]
    while piece:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows(piece)
        yield buffer.getvalue()
        piece = list(islice(lines, _ROWS_OF_PIECE))


def json_pieces(columns: Sequence[SheetColumn], rows: Rows, options: TableOptions) -> Iterator[str]:
    """Give a JSON array of objects, one a line."""
    before = "["
    for piece in _pieces(_json_objects(columns, rows)):
        yield before + ",\n ".join(piece)
        before = ",\n "
    yield "[]\n" if before == "[" else "]\n"


def jsonl_pieces(
    columns: Sequence[SheetColumn], rows: Rows, options: TableOptions
) -> Iterator[str]:
    """Give an object of JSON a line."""
    return _lines(_json_objects(columns, rows))


def _pieces(texts: Iterator[str]) -> Iterator[list[str]]:
    while piece := list(islice(texts, _ROWS_OF_PIECE)):
        yield piece


def _lines(lines: Iterator[str]) -> Iterator[str]:
    return ("".join(line + "\n" for line in piece) for piece in _pieces(lines))


def _json_objects(columns: Sequence[SheetColumn], rows: Rows) -> Iterator[str]:
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} columns are named {name!r}, and JSON keeps one of them",
                "give one of them another name: as",
            )
    for row in rows:
        values = {name: json_value(value) for name, value in zip(names, row, strict=True)}
        yield _escaped_json(values)


def _escaped_json(value: object) -> str:
    """Return JSON with everything escaped that a terminal would act on; the values are the same."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c).strip('"') for c in text)
