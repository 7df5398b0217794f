"""The comment that a file of SQL begins with, which says what is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moedb.errors import MoedbError
from moedb.queries.questions.question import OutputColumn

_ITEM = re.compile(r"-- (\w+)\b ?(.*)")
_COLUMN = re.compile(r"(?P<name>[a-z]\w*): (?P<doc>.+)")


def read_header(file: str, sql: str, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Read the items of a header: for each its kind and its text, in their order.

    Parameters
    ----------
    file
        The file, for errors.
    sql
        What is in it. A line ``-- KIND: TEXT`` or ``-- KIND TEXT`` is an item, and one that is
        indented goes on with the item above it.
    kinds
        The kinds of items that there may be.

    Raises
    ------
    MoedbError
        If a line is none of these.
    """
    header: list[tuple[str, str]] = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        item = _ITEM.fullmatch(line.rstrip())
        if item and item[1] in kinds:
            header.append((item[1], item[2].removeprefix(":").strip()))
        elif line.startswith("--   ") and header:
            kind, so_far = header[-1]
            header[-1] = (kind, f"{so_far} {line[2:].strip()}")
        else:
            *others, last = kinds
            raise malformed(file, f"line {line!r} is no {', '.join(others)} or {last}")
    return header


def read_columns(file: str, header: Sequence[tuple[str, str]]) -> tuple[OutputColumn, ...]:
    """Read the columns that a header declares.

    Raises
    ------
    MoedbError
        If there is none, or a line does not name one.
    """
    columns = []
    for kind, text in header:
        if kind == "column":
            found = _COLUMN.fullmatch(text)
            if found is None:
                raise malformed(file, f"column {text!r} is not NAME: WHAT IT IS")
            columns.append(OutputColumn(found["name"], found["doc"]))
    if not columns:
        raise malformed(file, "no column")
    return tuple(columns)


def malformed(file: str, what: str) -> MoedbError:
    """The error that a file does not say what it should."""
    return MoedbError(f"{file} is malformed: {what}")
