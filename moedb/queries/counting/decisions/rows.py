"""Counts as rows: columns that are put together layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Mapping[str, Any]
"""Some rows: columns by name, an array or a number that all rows have."""

Rows = dict[str, Any]
"""Columns by name, each an array (row,)."""


def joined(names: Sequence[str], parts: Iterable[Part]) -> Rows:
    """Put the rows of several parts one below the other.

    Parameters
    ----------
    names
        The columns.
    parts
        For each column its values; a number stands for as many as the last column has.
    """
    import numpy as np

    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for part in parts:
        n_rows = len(part[names[-1]])
        for name in names:
            values = part[name]
            columns[name].append(np.full(n_rows, values) if isinstance(values, int) else values)
    return {
        name: np.concatenate(values) if values else np.zeros(0, np.int64)
        for name, values in columns.items()
    }
