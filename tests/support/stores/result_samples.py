"""Results to render, export and draw, without a store."""

from collections.abc import Sequence
from typing import Any

import duckdb

from moedb.queries.results.formats.rendering import render_sheet
from moedb.queries.results.result import Provenance, Result, RunReference
from moedb.queries.results.sheets import TableOptions, arrange

RUN = RunReference(
    "qwen-ioi-9f8e7d", "qwen-ioi", "qwen-moe-mini", "1a2b3c4d5e6f", "ioi", 200, "complete"
)
FOOTER = "model qwen-moe-mini (sha256 1a2b3c4d), run qwen-ioi-9f8e7d, 200 examples; moedb 0.1.0"
HOSTILE = (
    "50% & $x_1$ #2 {a} ~b ^c \\d <e> |f| \"g\" `h` 'i'",
    "[optional]",
    "*star",
    " Mary",
    "line\nbreak\ttab \x1b[31mred\x1b[0m",
    "--- '' ,, ?` !` << >>",
    "Ärger, naïve, Żółw, αβγ, Ω, →, ≤",
    "日本語 🙂",
    'a|b,c;"d"',
    "\\",
    "",
)


def a_provenance(*runs: RunReference, **changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "name": "expert-frequency",
        "sql": "select layer from routing",
        "parameters": {"run": "qwen-ioi-9f8e7d"},
        "runs": runs or (RUN,),
        "snapshot": "c0ffee",
        "moedb_version": "0.1.0",
    }
    return Provenance(**(values | changes))


def a_result(sql: str, provenance: Provenance | None = None) -> Result:
    connection = duckdb.connect()
    return Result(connection.sql(sql), lambda: provenance or a_provenance(), connection)


def render(result: Result, format: str, options: TableOptions | None = None) -> str | bytes:
    """A result in a format, laid out as the options say."""
    options = options or TableOptions()
    return render_sheet(arrange(result, options), format, options)


def rows_result(types: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> Result:
    """A result that holds these rows, in this order."""
    connection = duckdb.connect()
    columns = ", ".join(f'"{name}" {sql_type}' for name, sql_type in types)
    connection.execute(f"create table given ({columns})")
    marks = ", ".join("?" for _ in types)
    for row in rows:
        connection.execute(f"insert into given values ({marks})", list(row))
    return Result(connection.sql("select * from given"), a_provenance, connection)


def the_sample() -> Result:
    """Every kind of column, nulls, and text that each format must escape."""
    rates = (0.25, -1.0 / 3.0, None, float("nan"), float("inf"), 12345.678, 1e-9, -0.0001, 2.0, 1.0)
    rows = [
        (i % 3, i, text, (*rates, 0.5)[i], i * 10**12 if i % 4 else None, i % 2 == 0)
        for i, text in enumerate(HOSTILE)
    ]
    return rows_result(
        [
            ("layer", "INTEGER"),
            ("expert", "INTEGER"),
            ("token & text_1", "VARCHAR"),
            ("rate", "DOUBLE"),
            ("n", "BIGINT"),
            ("ok", "BOOLEAN"),
        ],
        rows,
    )


def the_pivot_sample() -> Result:
    return a_result(
        "select i // 3 as layer, i % 3 as expert, (i * 7 % 5) / 4.0::double as rate "
        "from range(6) t(i) where i <> 4 order by layer, expert desc"
    )
