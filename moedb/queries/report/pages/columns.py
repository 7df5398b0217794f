"""Columns of numbers and texts as JSON that is small: typed arrays, deflated, and dictionaries.

A column is an object with ``type``, ``n`` and ``data``: the bytes of the values, little-endian,
those of wider types with the first bytes of all values in front, then the second and so on,
deflated (zlib) and in base 64. Texts have their distinct ``values`` in order of appearance, and
numbers into them as data. A missing number is NaN, a missing text null.
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

Column = Mapping[str, Any]
"""A column as JSON."""

_TYPES = {"u1": "u8", "u2": "u16", "u4": "u32", "i4": "i32", "f4": "f32", "f8": "f64"}
_DTYPES = {name: f"<{dtype}" for dtype, name in _TYPES.items()}
_MOST_EXACT = 2**53
"""Whole numbers up to here are the same as a float."""


def numbers(values: "NDArray[Any]") -> Column:
    """Return numbers as a column; whole ones in the narrowest type that holds them.

    Parameters
    ----------
    values
        (value,): integers, or floats with NaN where one is missing.

    Examples
    --------
    >>> import numpy as np
    >>> numbers(np.array([3, 250]))["type"], numbers(np.array([0.5, np.nan]))["type"]
    ('u8', 'f64')
    """
    import numpy as np

    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind in "iub":
        flat = flat.astype(_narrowest(flat))
    kind = flat.dtype.newbyteorder("<")
    shuffled = flat.astype(kind).view(np.uint8).reshape(len(flat), kind.itemsize).T
    packed = base64.b64encode(zlib.compress(shuffled.tobytes(), 9)).decode("ascii")
    return {"type": _TYPES[kind.str[1:]], "n": len(flat), "data": packed}


def texts(values: Sequence[str | None]) -> Column:
    """Return texts as a column.

    Parameters
    ----------
    values
        The texts; None where one is missing.
    """
    import numpy as np

    seen: dict[str | None, int] = {}
    codes = np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int64)
    return {**numbers(codes), "type": "text", "codes": numbers(codes)["type"], "values": [*seen]}


def table(rows: "pa.Table") -> dict[str, Any]:
    """Return rows as columns by name, in order, and how many there are.

    Parameters
    ----------
    rows
        Numbers and texts.
    """
    columns = [{"name": name, **_column(rows[name].combine_chunks())} for name in rows.column_names]
    return {"n": rows.num_rows, "columns": columns}


def read_column(column: Column) -> "NDArray[Any] | list[str | None]":
    """Return the values of a column, as the client reads them."""
    import numpy as np

    kind = np.dtype(_DTYPES[column["codes"] if column["type"] == "text" else column["type"]])
    raw = np.frombuffer(zlib.decompress(base64.b64decode(column["data"])), dtype=np.uint8)
    planes = raw.reshape(kind.itemsize, column["n"])
    read = np.ascontiguousarray(planes.T).view(kind).reshape(-1)
    return [column["values"][code] for code in read] if column["type"] == "text" else read


def read_table(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a table by name."""
    return {column["name"]: read_column(column) for column in given["columns"]}


def rows_where(given: Mapping[str, Any], name: str, value: object) -> dict[str, Any]:
    """Return the rows of a table in which a column of numbers has a value."""
    import numpy as np

    columns = read_table(given)
    kept = np.flatnonzero(columns[name] == value)
    cut = []
    for described in given["columns"]:
        values = columns[described["name"]]
        is_text = described["type"] == "text"
        own = texts([values[at] for at in kept]) if is_text else numbers(values[kept])
        cut.append({**described, **own})
    return {"n": len(kept), "columns": cut}


def _column(values: "pa.Array") -> Column:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return texts(values.to_pylist())
    if pa.types.is_null(values.type):
        return texts([None] * len(values))
    found = values.to_numpy(zero_copy_only=False)
    if found.dtype.kind == "O":
        found = found.astype(np.float64)
    return numbers(found)


def _narrowest(values: "NDArray[Any]") -> str:
    if not len(values):
        return "u1"
    least, most = int(values.min()), int(values.max())
    if least >= 0:
        for bits, dtype in ((8, "u1"), (16, "u2"), (32, "u4")):
            if most < 2**bits:
                return dtype
    if least >= -(2**31) and most < 2**31:
        return "i4"
    if max(-least, most) > _MOST_EXACT:
        raise ValueError(f"whole numbers up to {max(-least, most)} are not exact as a double")
    return "f8"
