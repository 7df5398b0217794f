"""Rows to stdout, to a file, or to a terminal of a certain width and height."""

import re
import shutil
import sys
from collections.abc import Collection
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.queries.results.result import Result
    from moedb.queries.results.rows.streaming import RowStream
    from moedb.queries.results.sheets import TableOptions

TERMINAL_ROWS = 100
"""Rows of a table on a terminal, where neither --limit nor a pager says otherwise."""

LINES_OF_CELL = 8
"""Lines of a cell of a table on a terminal: a longer text is cut short."""

PAGED_ROWS = 10_000
"""Rows of a table in a pager, where --limit does not say."""


def emit(
    result: "Result",
    format_: str | None,
    output: Path | None,
    limit: int | None,
    allow_empty: bool = False,
    columns: str | None = None,
    where: str | None = None,
    order_by: str | None = None,
    no_pager: bool = False,
    lines_of_cell: int = LINES_OF_CELL,
) -> "Result":
    """Print rows, or write them to a file with its sidecar; say so where rows are cut off.

    Where there are none, say why, and write no file unless that is allowed. On a terminal a cell
    of a table takes up to ``lines_of_cell`` lines.

    Returns
    -------
    Result
        The rows that were asked for, as they were printed.
    """
    from moedb.queries.results.formats.rendering import format_of_path
    from moedb.queries.results.rows.refinement import (
        Refinement,
        column_names,
        picked,
        refined,
    )
    from moedb.queries.results.rows.streaming import RowStream
    from moedb.queries.results.sheets import TableOptions

    chosen = format_ or (format_of_path(output) if output else "table")
    result = refined(result, Refinement(where, order_by))
    named = None if columns is None else column_names(columns)
    options = TableOptions(limit=limit, columns=named)
    shown = picked(result, named)
    if output is not None:
        from moedb.queries.results.export import export_counted

        written = export_counted(result, output, options, chosen, allow_empty)
        for path in written.paths:
            say(f"wrote {path}")
        n_rows, truncated = written.n_rows, written.truncated
    else:
        stream = RowStream(shown, limit)
        if chosen == "table" and sys.stdout.isatty():
            # a column that was asked about is not left out
            asked = set(re.findall(r"\w+", f"{where or ''} {order_by or ''}"))
            stream = _show(shown, options, no_pager, lines_of_cell, asked)
        else:
            _print(stream, chosen, options)
        n_rows, truncated = stream.n_rows, stream.truncated
    if not n_rows and not truncated:
        say(f"no rows: {result.why_empty()}")
    if truncated and limit is not None:
        say(f"only the first {limit} rows; more with --limit N")
    return result


def _print(stream: "RowStream", format: str, options: "TableOptions") -> None:
    from moedb.queries.results.formats.rendering import render_stream

    if format == "parquet" and sys.stdout.isatty():
        raise UsageError(f"{format} is not for a terminal", "name a file: -o FILE")
    for piece in render_stream(stream, format, options):
        # click takes escape sequences out of what goes to no terminal: data are exact
        click.echo(piece, nl=False, color=True)


def _show(
    result: "Result",
    options: "TableOptions",
    no_pager: bool,
    lines_of_cell: int,
    asked: Collection[str],
) -> "RowStream":
    """Print a table on a terminal: as wide as that is, and a screen at a time."""
    from moedb.commands.terminal.pager import find_pager, page
    from moedb.queries.results.formats.fitting import fit
    from moedb.queries.results.rows.streaming import RowStream

    screen = shutil.get_terminal_size()
    pager = None if no_pager else find_pager()
    limit = options.limit
    if limit is None:
        limit = TERMINAL_ROWS if pager is None else PAGED_ROWS
    stream = RowStream(result, limit)
    table = fit(stream, screen.columns, options.columns is not None, asked)
    lines = (line + "\n" for line in table.lines(lines_of_cell))
    first = list(islice(lines, screen.lines))
    if pager is not None and len(first) == screen.lines:
        page(pager, chain(first, lines))
    else:
        for line in chain(first, lines):
            click.echo(line, nl=False, color=True)
    if table.left_out:
        named = ", ".join(table.left_out)
        say(f"not shown: {named}; --columns shows them, a pipe has all")
    if table.cut:
        say(f"cut short: {', '.join(table.cut)}; a pipe has the whole of it")
    if stream.truncated and options.limit is None:
        counted = result.count_within(_PATIENCE)
        of = "more" if counted is None else f"{counted:,}"
        say(f"{stream.n_rows:,} of {of} rows; --limit N shows more, a pipe or -o FILE has all")
    return stream


_PATIENCE = 2.0
"""Seconds that counting the rows left out may take."""
