"""SQL that is typed in the browser: its rows, and what may come next in it."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from moedb.commands.asking.exploring.completing import offers
from moedb.commands.asking.exploring.desk import Desk, encoded
from moedb.errors import UsageError
from moedb.queries.report.pages.columns import numbers, texts
from moedb.queries.results.cells import json_value
from moedb.queries.results.values.conversions import NOT_IN_PYTHON

if TYPE_CHECKING:
    from moedb.queries.report.pages.columns import Column

MOST_ROWS = 2000
"""Rows that are shown."""

LONGEST = 20_000
"""Characters of a statement."""

_LARGEST = 32 * 2**20
"""Bytes of an answer."""

_MOST_EXACT = 2**53


def rows_of(statement: str, run: str | None, desk: Desk) -> bytes:
    """Run one statement that reads, and return its first rows as columns.

    Raises
    ------
    SqlRefusedError, SqlError
        As of :meth:`~moedb.queries.database.Database.sql`.
    UsageError
        If the rows are too large to be sent.
    """
    result = desk.database.sql(statement, run=run)
    names = result.columns
    found = result.as_text(NOT_IN_PYTHON).fetchmany(MOST_ROWS + 1)
    rows = found[:MOST_ROWS]
    columns = [
        {"name": name, **_column([row[place] for row in rows])}
        for place, name in enumerate(_distinct(names))
    ]
    note = ""
    if len(found) > MOST_ROWS:
        note = f"The first {MOST_ROWS:,} rows; moedb export --sql '...' -o FILE writes all."
    elif not rows:
        note = result.why_empty()
    answer = encoded(
        {"table": {"n": len(rows), "columns": columns}, "note": note, "footer": result.footer}
    )
    if len(answer) > _LARGEST:
        raise UsageError(
            f"the first {len(rows):,} rows have {len(answer) / 1e6:.0f} MB, too many to be shown",
            "select fewer columns, or end with: limit 100",
        )
    return answer


def offers_of(text: str, desk: Desk) -> bytes:
    """What may come next after a text."""
    return encoded({"offers": offers(desk.names, text)})


def _column(values: Sequence[Any]) -> "Column":
    """A column of numbers where all are, and a browser has them exactly; else texts."""
    import numpy as np

    given = [float(v) if isinstance(v, Decimal) else v for v in values]
    there = [value for value in given if value is not None]
    if there and all(_is_number(value) for value in there):
        if len(there) == len(given) and all(isinstance(value, int) for value in there):
            return numbers(np.array(given, dtype=np.int64))
        return numbers(np.array([np.nan if v is None else v for v in given], dtype=np.float64))
    return texts([None if v is None else _text(v) for v in values])


def _text(value: object) -> str:
    """The whole of a value, as it is copied."""
    held = json_value(value)
    return held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MOST_EXACT)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    found: list[str] = []
    for name in names:
        number, each = 1, name
        while each in found:
            number += 1
            each = f"{name} ({number})"
        found.append(each)
    return found
