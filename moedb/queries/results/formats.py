"""The one place that turns a result into text or bytes.

``table``, ``csv``, ``json`` and ``jsonl`` import neither pandas nor pyarrow, so that the command
line answers at once.

Data formats hold the values as they are: CSV by RFC 4180 with floats in full and null empty; JSON
with null for a number that is not finite; Parquet with the column types of the result. The formats
to look at (``table``, ``markdown``, ``latex``, ``html``) round floats and show control characters
as escapes and the spaces around a token as ``␣``; see
:func:`moedb.queries.results.visible.visible`.
"""

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import UsageError, did_you_mean
from moedb.queries.results.cells import json_value, plain_table, plain_text, shown_text
from moedb.queries.results.conversions import NOT_IN_PARQUET, NOT_IN_PYTHON
from moedb.queries.results.result import Result
from moedb.queries.results.sheets import (
    PAPER_PRECISION,
    Sheet,
    TableOptions,
    arrange,
    bold_cells,
)
from moedb.queries.results.visible import visible
from moedb.schemas.formats import FORMAT_OF_ENDING, FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Sheet",
    "TableOptions",
    "arrange",
    "footer_line",
    "format_of_path",
    "render",
    "render_sheet",
]

_MARKDOWN_SPECIAL = re.compile(r"[\\`*|<\[\]&~$]|(?<![^\W_])_|_(?![^\W_])")


def format_of_path(path: str | Path) -> str:
    """Return the format that a file's ending asks for.

    Raises
    ------
    UsageError
        If the ending is none of those known.

    Examples
    --------
    >>> format_of_path("overlap.tex")
    'latex'
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMAT_OF_ENDING:
        given = f"ending {ending!r}" if ending else "a name without ending"
        raise UsageError(f"{path}: {given} names no format", did_you_mean(ending, FORMAT_OF_ENDING))
    return FORMAT_OF_ENDING[ending]


def render(result: Result, format: str, options: TableOptions | None = None) -> str | bytes:
    """Return a result in one of :data:`FORMATS`.

    Parameters
    ----------
    result
        The query; it runs now.
    format
        One of :data:`FORMATS`. ``parquet`` gives bytes, the others text that ends in a newline.
    options
        Columns, pivot, precision and so on.

    Raises
    ------
    UsageError
        If the format, or a column that the options name, is unknown.
    """
    options = options or TableOptions()
    _check_format(format)
    return render_sheet(arrange(result, options), format, options)


def render_sheet(sheet: Sheet, format: str, options: TableOptions) -> str | bytes:
    """Return rows that :func:`arrange` laid out in one of :data:`FORMATS`.

    It serves a caller that wants to know ``sheet.truncated`` too, without a second query.
    """
    _check_format(format)
    if format == "parquet":
        return _parquet(sheet)
    if format == "latex":
        from moedb.queries.results.latex import latex_table

        return latex_table(sheet, options, footer_line(sheet))
    writers: dict[str, Callable[[Sheet, TableOptions], str]] = {
        "table": _table,
        "csv": _csv,
        "json": _json,
        "jsonl": _jsonl,
        "markdown": _markdown,
        "html": _html,
    }
    return writers[format](sheet, options)


def footer_line(sheet: Sheet) -> str:
    """Return the line below a table: how it was cut, and where it comes from."""
    cut = f"first {len(sheet.rows)} rows; " if sheet.truncated else ""
    return visible(cut + sheet.source.provenance.footer())


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", did_you_mean(format, FORMATS))


def _headers(sheet: Sheet, options: TableOptions) -> list[str]:
    return [visible(options.header_names.get(c.name, c.name)) for c in sheet.columns]


def _alignment(sheet: Sheet) -> list[str]:
    return ["left" if column.kind == "text" else "right" for column in sheet.columns]


def _table(sheet: Sheet, options: TableOptions) -> str:
    cells = [[shown_text(value, options.precision) for value in row] for row in sheet.rows]
    headers = [options.header_names.get(column.name, column.name) for column in sheet.columns]
    return plain_table(headers, [column.kind for column in sheet.columns], cells)


def _csv(sheet: Sheet, options: TableOptions) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([column.name for column in sheet.columns])
    writer.writerows([[plain_text(value) for value in row] for row in sheet.rows])
    return buffer.getvalue()


def _json(sheet: Sheet, options: TableOptions) -> str:
    return "[" + ",\n ".join(_json_objects(sheet)) + "]\n"


def _jsonl(sheet: Sheet, options: TableOptions) -> str:
    return "".join(line + "\n" for line in _json_objects(sheet))


def _json_objects(sheet: Sheet) -> list[str]:
    names = [column.name for column in sheet.columns]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} columns are named {name!r}, and JSON keeps one of them",
                "give one of them another name: as",
            )
    return [
        _json_text({name: json_value(value) for name, value in zip(names, row, strict=True)})
        for row in sheet.rows
    ]


def _json_text(value: object) -> str:
    """Return JSON with everything escaped that a terminal would act on; the values are the same."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c).strip('"') for c in text)


def _markdown(sheet: Sheet, options: TableOptions) -> str:
    from tabulate import tabulate

    precision = _paper_precision(options)
    bold = bold_cells(sheet, options, precision)
    cells = [
        [
            f"**{text}**" if (r, c) in bold else text
            for c, text in enumerate(escape_markdown(shown_text(v, precision)) for v in row)
        ]
        for r, row in enumerate(sheet.rows)
    ]
    table = tabulate(
        cells,
        headers=[escape_markdown(header) for header in _headers(sheet, options)],
        tablefmt="pipe",
        colalign=_alignment(sheet),
        disable_numparse=True,
    )
    caption = ["Table: " + escape_markdown(visible(options.caption))] if options.caption else []
    footer = [escape_markdown(footer_line(sheet))] if options.footer else []
    return "\n\n".join([*caption, table, *footer]) + "\n"


def escape_markdown(text: str) -> str:
    """Return text that Markdown prints as it is: no markup, no HTML, no formulas."""
    return _MARKDOWN_SPECIAL.sub(lambda found: "\\" + found[0], text)


def _html(sheet: Sheet, options: TableOptions) -> str:
    precision = _paper_precision(options)
    bold = bold_cells(sheet, options, precision)
    styles = ["" if a == "left" else ' style="text-align: right"' for a in _alignment(sheet)]
    title = options.caption or sheet.source.provenance.name or "table"
    lines = ["<!doctype html>", '<meta charset="utf-8">']
    lines += [f"<title>{html.escape(visible(title))}</title>"]
    lines += ["<table>"]
    if options.caption:
        lines += [f"<caption>{html.escape(visible(options.caption))}</caption>"]
    lines += ["<thead>"]
    if sheet.spanner is not None and sheet.spanned:
        spanner = html.escape(visible(options.header_names.get(sheet.spanner, sheet.spanner)))
        cells = [f'<th colspan="{len(sheet.spanned)}">{spanner}</th>']
        cells = ["<th></th>"] * sheet.spanned.start + cells
        cells += ["<th></th>"] * (len(sheet.columns) - sheet.spanned.stop)
        lines += ["<tr>" + "".join(cells) + "</tr>"]
    headers = zip(styles, _headers(sheet, options), strict=True)
    lines += ["<tr>" + "".join(f"<th{s}>{html.escape(h)}</th>" for s, h in headers) + "</tr>"]
    lines += ["</thead>", "<tbody>"]
    for r, row in enumerate(sheet.rows):
        texts = [html.escape(shown_text(value, precision)) for value in row]
        marked = [f"<strong>{t}</strong>" if (r, c) in bold else t for c, t in enumerate(texts)]
        cells = [f"<td{s}>{text}</td>" for s, text in zip(styles, marked, strict=True)]
        lines += ["<tr>" + "".join(cells) + "</tr>"]
    lines += ["</tbody>"]
    if options.footer:
        footer = html.escape(footer_line(sheet))
        lines += [
            f'<tfoot><tr><td colspan="{len(sheet.columns)}"><small>{footer}</small></td></tr>'
        ]
        lines += ["</tfoot>"]
    return "\n".join([*lines, "</table>"]) + "\n"


def _parquet(sheet: Sheet) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    metadata = {b"moedb": json.dumps(sheet.source.provenance.to_dict(), sort_keys=True).encode()}
    table = _arrow_table(sheet).replace_schema_metadata(metadata)
    for position, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type) and column.type.scale == 0:
            # sums of integers are HUGEINT in DuckDB, which few engines read
            try:
                narrow = table.column(position).cast(pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(position, column.name, narrow)
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _arrow_table(sheet: Sheet) -> "pa.Table":
    import pyarrow as pa

    if sheet.spanner is None:
        table = sheet.source.as_text(NOT_IN_PARQUET).limit(len(sheet.rows)).arrow()
        names = [column.name for column in sheet.columns]
        return table.select([column.source for column in sheet.columns]).rename_columns(names)
    schema = sheet.source.as_text(NOT_IN_PYTHON | NOT_IN_PARQUET).limit(0).arrow().schema
    arrays = []
    for position, column in enumerate(sheet.columns):
        values, kind = [row[position] for row in sheet.rows], schema.field(column.source).type
        if pa.types.is_string(kind):
            values = [None if value is None else plain_text(value) for value in values]
        arrays.append(pa.array(values, type=kind))
    return pa.Table.from_arrays(arrays, names=[column.name for column in sheet.columns])


def _paper_precision(options: TableOptions) -> int:
    return PAPER_PRECISION if options.precision is None else options.precision
