"""Values of columns as the strings that labels and texts are."""

import datetime
import decimal
import math
from typing import Any

from moedb.capture.jobs.text.sources.rows import shown
from moedb.errors import DatasetError

_OTHER = "a nested value"


def kind_of(value: object) -> str:
    """What a value is, in a word: ``text``, ``number``, ``boolean``, ``date``, or nested."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float | decimal.Decimal):
        return "number"
    if isinstance(value, datetime.date | datetime.time):
        return "date"
    return _OTHER


def label_text(value: Any) -> str | None:
    """A label's text: ``true``, ``3``, ``0.5``; null and NaN are no label.

    A whole number is written without a point, whatever type its column has: a column of whole
    numbers with a null in it often comes as one of floats.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def checked_text(value: Any, column: str, place: str, option: str) -> str:
    """Return ``value`` if it is a text.

    Raises
    ------
    DatasetError
        If it is something else, or holds half a surrogate pair, which no encoding can write.
    """
    if not isinstance(value, str):
        raise DatasetError(
            f"{option} {column}: {place} has {shown(value)}, which is {kind_of(value)}; "
            "expected text"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{option} {column}: {place} has a lone surrogate (character {error.start}) in "
            f"{shown(value)}; expected text that is valid Unicode"
        ) from error
    return value


class LabelColumn:
    """A column of labels, whose values are all of one kind.

    Parameters
    ----------
    name
        The column.
    option
        The option that names it, for messages.
    """

    def __init__(self, name: str, option: str) -> None:
        self.name = name
        self.option = option
        self._kind: str | None = None
        self._first = ""

    def text(self, value: Any, place: str) -> str | None:
        """The label's text; None for no label.

        Raises
        ------
        DatasetError
            If the value is nested, or of another kind than those before it.
        """
        text = None if isinstance(value, list | dict | tuple) else label_text(value)
        if value is None or (text is None and isinstance(value, float)):
            return None
        kind = kind_of(value)
        what = f"{self.option} {self.name}: {place} has {shown(value)}, which is {kind}"
        if kind == _OTHER:
            raise DatasetError(f"{what}; expected text, a number, a boolean or null")
        if self._kind is None:
            self._kind, self._first = kind, f"{place} has {shown(value)}"
        if kind != self._kind:
            raise DatasetError(
                f"{what}, while {self._first}, which is {self._kind}; expected one kind in a column"
            )
        return checked_text(text, self.name, place, self.option)
