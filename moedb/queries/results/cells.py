"""The cells of a table as text: in full, as printed, and safe to look at."""

import datetime
import decimal
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any, Literal

from moedb.queries.results.visible import visible

Kind = Literal["integer", "float", "text"]
"""How the values of a column are printed."""

_INTEGERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|U?INTEGER$|DECIMAL\(\d+,\s*0\)$")
_FLOATS = re.compile(r"(FLOAT|DOUBLE|REAL|DECIMAL.*|BIGNUM|VARINT)$")
_LARGE = 1e15
_SHORT = 1e-4
_MOST_DECIMALS = 8
"""An estimate and its ends that need more digits after the point are printed as powers of ten."""
_MOST_DIGITS = 16

NO_END = "n/a"
"""What stands for an end that an interval does not have."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with the ends of its interval, in one cell.

    Attributes
    ----------
    value
        The number; None where only its ends are known.
    low, high
        The ends; None or NaN where there is none.
    plus_minus
        Whether half the width is printed in the place of the ends where both are as far away.
    """

    value: Any
    low: Any
    high: Any
    plus_minus: bool = False

    @property
    def lacks_an_end(self) -> bool:
        """Whether an end is missing."""
        return _is_missing(self.low) or _is_missing(self.high)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of it."""
        return all(map(_is_missing, (self.value, self.low, self.high)))


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
        Digits after the decimal point of a float, unless they would be zeros for a number below
        1e-4 of one or two digits; None for 4 significant digits.
    null
        What stands for null.

    Examples
    --------
    >>> shown_text(1e-05, 3), shown_text(0.000012345, 3)
    ('1e-05', '0.000')
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
            return _significant(number) if precision is None else _rounded(number, precision)
        case datetime.datetime() | datetime.date() | datetime.time() | datetime.timedelta():
            return str(value)
        case Estimate():
            return interval_text(value, precision)
        case _:
            return visible(plain_text(value, null))


def interval_text(
    estimate: Estimate,
    precision: int | None = None,
    dressed: Callable[[str], str] = str,
    plus_minus: str = "±",
) -> str:
    """Return an estimate and its interval as text to look at, all rounded alike.

    There are as many digits more as the ends need to differ. Half the width stands for both ends
    only where they are as far from the estimate, as printed.

    Parameters
    ----------
    estimate
        The estimate and its ends.
    precision
        Digits after the decimal point; None for 4 significant digits of the largest number.
    dressed
        Makes of a printed number what stands in the cell.
    plus_minus
        What stands between an estimate and half the width.

    Examples
    --------
    >>> interval_text(Estimate(0.25, 0.2196, 0.2901), 2)
    '0.25 [0.22, 0.29]'
    >>> interval_text(Estimate(0.25, None, None), 2)
    '0.25 [n/a]'
    >>> interval_text(Estimate(0.5, 0.49991, 0.50009), 2)
    '0.5000 [0.4999, 0.5001]'
    >>> interval_text(Estimate(0.25, 0.22, 0.28, plus_minus=True), 2)
    '0.25 ± 0.03'
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    printed = _alike([value, low, high], precision)
    texts = [NO_END if _is_missing(each) else dressed(printed(each)) for each in (value, low, high)]
    if _is_missing(low) and _is_missing(high):
        return f"{texts[0]} [{NO_END}]"
    if estimate.plus_minus and NO_END not in texts:
        middle, least, most = float(value), float(low), float(high)
        below, above = printed(middle - least), printed(most - middle)
        if below == above and float(below) > 0:
            half = printed((most - least) / 2)
            return f"{texts[0]} {plus_minus} {dressed(half)}"
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def estimate_text(value: object, precision: int | None = None) -> str:
    """Return a value as text to look at; of one with an interval the estimate alone."""
    if not isinstance(value, Estimate):
        return shown_text(value, precision)
    return _alike([value.value, value.low, value.high], precision)(value.value)


def _is_missing(end: object) -> bool:
    return end is None or (isinstance(end, float) and math.isnan(end))


def _alike(numbers: Sequence[Any], precision: int | None) -> Callable[[Any], str]:
    """What prints an estimate and its ends: all with the same digits, enough to tell the ends."""
    given = [number for number in numbers if not _is_missing(number)]
    finite = [float(number) for number in given if math.isfinite(number)]
    if all(isinstance(number, int) for number in given):
        return str
    decimals = _decimals_of(finite) if precision is None else precision

    def fixed(number: Any) -> str:
        return _fixed(float(number), decimals) if math.isfinite(number) else shown_text(number)

    def scientific(number: Any) -> str:
        return f"{number:.{digits}e}" if math.isfinite(number) else shown_text(number)

    low, high = numbers[1:]
    if _is_missing(low) or _is_missing(high) or low == high:
        return fixed
    while fixed(low) == fixed(high) and decimals < max(_MOST_DECIMALS, precision or 0):
        decimals += 1
    if fixed(low) != fixed(high):
        return fixed
    digits = 3
    while scientific(low) == scientific(high) and digits < _MOST_DIGITS:
        digits += 1
    return scientific


def _decimals_of(numbers: Sequence[float]) -> int:
    """Digits after the point that leave the largest number 4 significant ones."""
    largest = max(map(abs, numbers), default=0.0)
    if largest == 0:
        return 0
    return min(max(3 - math.floor(math.log10(largest)), 0), _MOST_DECIMALS)


def _fixed(value: float, precision: int) -> str:
    if abs(value) >= _LARGE:
        return f"{value:.{precision}e}"
    return f"{value:z.{precision}f}"


def _rounded(value: float, precision: int) -> str:
    text = _fixed(value, precision)
    # A setting such as 1e-5 is no 0: so small a number of two digits is printed whole.
    if 0 < abs(value) < _SHORT and not float(text) and float(f"{value:.1e}") == value:
        return f"{value:g}"
    return text


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
