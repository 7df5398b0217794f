"""The cells of a table as text: in full, as printed, and safe to look at."""

import datetime
import decimal
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from typing import Any, Literal

from moedb.queries.results.visible import visible

Kind = Literal["integer", "float", "text"]
"""How the values of a column are printed."""

_INTEGERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|U?INTEGER$|DECIMAL\(\d+,\s*0\)$")
_FLOATS = re.compile(r"(FLOAT|DOUBLE|REAL|DECIMAL.*|BIGNUM|VARINT)$")
_LARGE = 1e15


def plain_text(value: object, null: str = "") -> str:
    """Return a value as full text: floats by ``repr``, nested values as JSON, null as given."""
    match value:
        case None:
            return null
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case dict() | list() | tuple():
            return json.dumps(json_value(value), ensure_ascii=False)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case _:
            return str(value)


def shown_text(value: object, precision: int | None = None, null: str = "") -> str:
    r"""Return a value as text to look at.

    Parameters
    ----------
    value
        What DuckDB returned.
    precision
        Digits after the decimal point of a float; None for 4 significant digits.
    null
        What stands for null.

    Examples
    --------
    >>> shown_text(2 / 3), shown_text(2 / 3, 2), shown_text(1234567.8), shown_text(" Mary\n")
    ('0.6667', '0.67', '1234568', '␣Mary\\n')
    """
    match value:
        case int() if not isinstance(value, bool):
            return str(value)
        case decimal.Decimal() if value.as_tuple().exponent == 0:
            return str(value)
        case float() | decimal.Decimal() if not math.isfinite(value):
            return str(value).lower().replace("infinity", "inf")
        case float() | decimal.Decimal():
            number = float(value)
            return _significant(number) if precision is None else _fixed(number, precision)
        case datetime.datetime() | datetime.date() | datetime.time() | datetime.timedelta():
            return str(value)
        case _:
            return visible(plain_text(value, null))


def _fixed(value: float, precision: int) -> str:
    if abs(value) >= _LARGE:
        return f"{value:.{precision}e}"
    return f"{value:z.{precision}f}"


def _significant(value: float) -> str:
    if 9999.5 <= abs(value) < _LARGE:
        return f"{value:z.0f}"
    return f"{value:z.4g}"


def json_value(value: object) -> Any:
    r"""Return ``value`` as something that JSON holds.

    Numbers that are not finite become null, a blob its hexadecimal digits; dates, UUIDs and the
    like become the text that SQL prints.

    Examples
    --------
    >>> from datetime import date
    >>> json_value({"rate": float("nan"), "day": date(2026, 1, 31), "raw": b"\x00\xff"})
    {'rate': None, 'day': '2026-01-31', 'raw': '00ff'}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case decimal.Decimal():
            # DuckDB's are finite; those of scale 0 are integers of up to 38 digits
            return int(value) if value.as_tuple().exponent == 0 else float(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case set() | frozenset():
            return sorted((json_value(item) for item in value), key=str)
        case _:
            return str(value)


def kind_of(sql_type: str) -> Kind:
    """Return how values of a SQL type are printed.

    Examples
    --------
    >>> [kind_of(t) for t in ("INTEGER", "HUGEINT", "DECIMAL(9,2)", "FLOAT", "INTEGER[]")]
    ['integer', 'integer', 'float', 'float', 'text']
    """
    if _INTEGERS.match(sql_type):
        return "integer"
    return "float" if _FLOATS.match(sql_type) else "text"


def plain_table(
    headers: Sequence[str], kinds: Sequence[Kind], cells: Sequence[Sequence[str]]
) -> str:
    """Return cells as a table of plain text, numbers to the right, with a line break at its end.

    Parameters
    ----------
    headers, kinds
        One for each column.
    cells
        The rows, as text to look at.
    """
    shown = [visible(header) for header in headers]
    widths = [max(map(len, column)) for column in zip(shown, *cells, strict=True)]
    return "".join(line + "\n" for line in aligned_lines(shown, kinds, widths, cells))


def aligned_lines(
    headers: Sequence[str],
    kinds: Sequence[Kind],
    widths: Sequence[int],
    rows: Iterable[Sequence[str]],
) -> Iterator[str]:
    """Return the lines of a table, its headers and a rule first; numbers stand to the right.

    Parameters
    ----------
    headers, kinds, widths
        One for each column; the widest text of it has ``widths`` characters. A column is at least
        two wider than its header.
    rows
        The cells, as text to look at.
    """
    if not headers:
        yield ""
        return
    given = iter(rows)
    first = next(given, None)
    if first is None:  # nothing is there for the headers to stand over
        kinds = ["text"] * len(headers)
    wide = [max(width, len(header) + 2) for header, width in zip(headers, widths, strict=True)]
    line = "  ".join(
        f"{{:{'<' if kind == 'text' else '>'}{width}}}"
        for kind, width in zip(kinds, wide, strict=True)
    )
    yield line.format(*headers).rstrip()
    yield "  ".join("-" * width for width in wide)
    for row in () if first is None else chain((first,), given):
        yield line.format(*row).rstrip()


def html_table(
    headers: Sequence[str], kinds: Sequence[Kind], cells: Sequence[Sequence[str]]
) -> str:
    """Return cells as a table of HTML, numbers to the right; nothing in them is markup.

    Parameters
    ----------
    headers, kinds
        One for each column.
    cells
        The rows, as text to look at.
    """
    styles = ["" if kind == "text" else ' style="text-align: right"' for kind in kinds]

    def row(tag: str, texts: Sequence[str]) -> str:
        marked = (f"<{tag}{s}>{escape(t)}</{tag}>" for s, t in zip(styles, texts, strict=True))
        return f"<tr>{''.join(marked)}</tr>"

    head = row("th", [visible(header) for header in headers])
    body = "".join(row("td", texts) for texts in cells)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
