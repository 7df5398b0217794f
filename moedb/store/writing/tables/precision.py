"""How many significant bits of a float are kept.

A model that runs in bfloat16 has 8 in every value that it computes, and what moedb computes of such
values is good for little more. What the model itself says, its weights, is never rounded; where it
has cast them to bfloat16 that is found, and they compress as well.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moedb.schemas.tables import Table

ALL_BITS = 24
"""Significant bits of a float32."""

STATISTIC_BITS = 12
KEPT_BITS: Mapping[tuple[str, str], int] = {
    ("norm", "bfloat16"): 8,
    ("norm", "float16"): 11,
    ("statistic", "bfloat16"): STATISTIC_BITS,
    ("statistic", "float16"): STATISTIC_BITS,
}
"""For a column's precision and the model's number format, the bits that are kept; else all."""

_FOUND_BITS = (8, 11)
"""What is looked for in other columns: bfloat16, and float16."""


def rounded(rows: pa.Table, table: Table, dtype: str) -> tuple[pa.Table, dict[str, int]]:
    """Round what moedb computed of a model that ran in ``dtype``.

    Returns
    -------
    tuple
        The rows; and for each column whose values all have fewer significant bits than its type
        holds, how many: those that were rounded, and those that the model had cast.
    """
    bits = {}
    for index, column in enumerate(table.columns):
        if column.type != "float":
            continue
        kept = KEPT_BITS.get((column.precision, dtype))
        if kept is not None:
            values = [round_to(chunk, kept) for chunk in rows.column(index).chunks]
            rows = rows.set_column(
                index, rows.schema.field(index), pa.chunked_array(values, pa.float32())
            )
        elif dtype != "float32":
            kept = _significant_bits(rows.column(index))
        if kept is not None:
            bits[column.name] = kept
    return rows, bits


def round_to(values: pa.Array, bits: int) -> pa.Array:
    """Round float32 values to ``bits`` significant bits, ties to even; nulls stay."""
    given = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return pa.array(round_floats(given, bits), pa.float32(), mask=_nulls(values))


def round_floats(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 values to ``bits`` significant bits, ties to even.

    Values that are not finite, or would not be, stay as they are.

    Examples
    --------
    >>> round_floats(np.array([1.0, 1.01, 300.7], np.float32), 8).tolist()
    [1.0, 1.0078125, 300.0]
    """
    dropped = ALL_BITS - bits
    words = values.view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1) + ((words >> np.uint32(dropped)) & np.uint32(1))
    kept = (words + half) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    found: NDArray[np.float32] = kept.view(np.float32)
    return np.asarray(np.where(np.isfinite(values) & np.isfinite(found), found, values))


def _significant_bits(column: pa.ChunkedArray) -> int | None:
    """The fewest of the bits that are looked for which hold every value; None for none."""
    words = [_words(chunk) for chunk in column.chunks]
    for bits in _FOUND_BITS:
        below = np.uint32((1 << (ALL_BITS - bits)) - 1)
        if not any((part & below).any() for part in words):
            return bits
    return None


def _words(values: pa.Array) -> NDArray[np.uint32]:
    present = np.asarray(values.drop_null().to_numpy(zero_copy_only=False), np.float32)
    return np.asarray(present[np.isfinite(present)]).view(np.uint32)


def _nulls(values: pa.Array) -> NDArray[np.bool_] | None:
    if not values.null_count:
        return None
    return np.asarray(values.is_null().to_numpy(zero_copy_only=False))
