"""The cells of a table as text: in full, as printed, and safe to look at."""

import datetime
import decimal
import json
import math

from moedb.queries.result import json_value
from moedb.visible import visible

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
