"""Types that Python, Arrow or Parquet hold wrongly or not at all, turned into text by DuckDB.

Python knows no infinite date, no year 10000, no nanosecond and no month: DuckDB gives ``infinity``
as the last day of 9999 and an interval of a month as 30 days. As text they stay what they are.
"""

from collections.abc import Set
from typing import TYPE_CHECKING, Any

from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    import duckdb
    from duckdb.sqltypes import DuckDBPyType

NOT_IN_PYTHON = frozenset(
    {"variant", "time with time zone", "date", "time", "time_ns", "interval"}
    | {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"}
)
"""Ids of the types whose values Python's own do not all hold, or that it prints unlike SQL."""

NOT_IN_FRAMES = frozenset({"time with time zone", "uhugeint", "bignum", "varint", "bit", "variant"})
"""Ids of the types that pandas refuses or that Arrow gets as bytes of DuckDB's own."""

NOT_IN_PARQUET = NOT_IN_FRAMES | {"interval", "union"}
"""Ids of the types that Parquet does not have."""


def as_text(relation: "duckdb.DuckDBPyRelation", types: Set[str]) -> "duckdb.DuckDBPyRelation":
    """Return a relation with the values of some types as text, within other values too.

    Parameters
    ----------
    relation
        What is read. Names and order of its columns and the order of its rows stay.
    types
        Ids of types, such as :data:`NOT_IN_PYTHON`.

    Returns
    -------
    DuckDBPyRelation
        The same relation where it has none of them. Text is what ``cast(... as varchar)`` gives;
        of a variant it is JSON.
    """
    replacements = [_with_text(sql_type, types) for sql_type in relation.types]
    if not any(replacements):
        return relation
    columns = [
        f"cast(#{place} as {replacement}) as {quoted(name)}"
        if replacement
        else f"#{place} as {quoted(name)}"
        for place, (name, replacement) in enumerate(
            zip(relation.columns, replacements, strict=True), start=1
        )
    ]
    return relation.project(", ".join(columns))


def _with_text(sql_type: "DuckDBPyType", types: Set[str]) -> str | None:
    """Return the type with text in place of ``types``; None if it has none of them."""
    if sql_type.id in types:
        return "JSON" if sql_type.id == "variant" else "VARCHAR"
    if sql_type.id not in ("list", "array", "struct", "map", "union"):
        return None
    parts: dict[str, Any] = dict(sql_type.children)
    inner = {name: _with_text(part, types) for name, part in parts.items() if name != "size"}
    if not any(inner.values()):
        return None
    new = {name: replacement or str(parts[name]) for name, replacement in inner.items()}
    match sql_type.id:
        case "list":
            return f"{new['child']}[]"
        case "array":
            return f"{new['child']}[{parts['size']}]"
        case "map":
            return f"MAP({new['key']}, {new['value']})"
        case "struct":
            return "STRUCT(" + ", ".join(f"{quoted(n)} {t}" for n, t in new.items()) + ")"
        case _:
            return "VARCHAR"
