"""What a figure asks of the rows that it draws."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


def check_value(value: str, known: Iterable[str]) -> None:
    """Refuse a value that a figure cannot show."""
    names = list(known)
    if value not in names:
        raise UsageError(f"no value {value!r}", did_you_mean(value, names))


def require_columns(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Refuse a frame that lacks one of the columns."""
    missing = [column for column in columns if column not in frame]
    if missing:
        listed = ", ".join(map(str, frame.columns))
        raise UsageError(f"the result lacks {', '.join(missing)}", f"columns: {listed}")


def require_one_row(
    frame: "pd.DataFrame", keys: Sequence[str], what: str, hint: str = "narrow it to one run"
) -> None:
    """Refuse a frame that has several rows for one cell, bar or point.

    Parameters
    ----------
    frame
        The rows.
    keys
        The columns that tell the cells apart.
    what
        What a cell is of, such as ``an expert of a layer``.
    hint
        What would leave one row for each.
    """
    if frame.duplicated(list(keys)).any():
        raise UsageError(f"more than one row for {what}", hint)
