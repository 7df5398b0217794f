"""The one place that turns a result into text or bytes.

Data formats and ``table`` are written as the rows come, so that they need not all be in memory; the
others lay a :class:`~.sheets.Sheet` out.

``table``, ``csv``, ``json`` and ``jsonl`` import neither pandas nor pyarrow, so that the command
line answers at once.

Data formats hold the values as they are: CSV by RFC 4180 with floats in full and null empty; JSON
with null for a number that is not finite; Parquet with the column types of the result. The formats
to look at (``table``, ``markdown``, ``latex``, ``html``) round floats and show control characters
as escapes and the spaces around a token as ``␣``; see
:func:`moedb.queries.results.visible.visible`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moedb.errors import UsageError, did_you_mean
from moedb.queries.results.formats.plain import (
    csv_pieces,
    json_pieces,
    jsonl_pieces,
    table_pieces,
)
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import Sheet, SheetColumn, TableOptions
from moedb.schemas.formats import FORMAT_OF_ENDING, FORMATS


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


def render_sheet(sheet: Sheet, format: str, options: TableOptions) -> str | bytes:
    """Return rows that :func:`~.sheets.arrange` laid out in one of :data:`FORMATS`.

    Parameters
    ----------
    sheet
        The rows.
    format
        One of :data:`FORMATS`. ``parquet`` gives bytes, the others text that ends in a newline.
    options
        Precision, bold, caption and so on; ``sheet`` was laid out by the others.

    Raises
    ------
    UsageError
        If the format is unknown.
    """
    _check_format(format)
    if format == "parquet":
        from moedb.queries.results.formats.parquet import parquet_bytes

        return parquet_bytes(sheet)
    if format in _PIECES:
        return "".join(_PIECES[format](sheet.columns, sheet.rows, options))
    return _writer(format)(sheet, options)


def render_stream(stream: RowStream, format: str, options: TableOptions) -> Iterator[str | bytes]:
    """Give rows in one of :data:`FORMATS` piece by piece, as they come where it allows that.

    Parameters
    ----------
    stream
        The rows; they have all been read when the last piece is taken.
    format
        As in :func:`render_sheet`; LaTeX, Markdown and HTML come in one piece.
    options
        Its ``pivot`` and ``limit`` do not count.

    Raises
    ------
    UsageError
        If the format is unknown.
    """
    _check_format(format)
    if format == "parquet":
        from moedb.queries.results.formats.parquet import parquet_pieces

        yield from parquet_pieces(stream)
    elif format in _PIECES:
        yield from _PIECES[format](stream.columns, stream.rows(), options)
    else:
        rows = tuple(stream.rows())
        sheet = Sheet(stream.source, stream.columns, rows, truncated=stream.truncated)
        yield _writer(format)(sheet, options)


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", did_you_mean(format, FORMATS))


_PIECES: Mapping[
    str, Callable[[Sequence[SheetColumn], Iterable[Sequence[Any]], TableOptions], Iterator[str]]
] = {"table": table_pieces, "csv": csv_pieces, "json": json_pieces, "jsonl": jsonl_pieces}


def _writer(format: str) -> Callable[[Sheet, TableOptions], str]:
    if format == "latex":
        from moedb.queries.results.formats.latex import latex_table

        return latex_table
    if format == "markdown":
        from moedb.queries.results.formats.markdown import markdown_text

        return markdown_text
    from moedb.queries.results.formats.html import html_page

    return html_page
