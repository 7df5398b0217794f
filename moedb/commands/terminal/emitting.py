"""Rows to stdout, to a file, or to a terminal of a certain width and height."""

import re
import shutil
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.queries.results.result import Result, View
    from moedb.queries.results.rows.streaming import RowStream
    from moedb.queries.results.sheets import TableOptions
    from moedb.queries.results.values.intervals import Intervals

TERMINAL_ROWS = 100
"""Rows of a table on a terminal, where neither --limit nor a pager says otherwise."""

LINES_OF_CELL = 8
"""Lines of a cell of a table on a terminal: a longer text is cut short."""

PAGED_ROWS = 10_000
"""Rows of a table in a pager, where --limit does not say."""


LINE = "line"
"""A format for a terminal alone: a line for each column of a row."""


@dataclass(frozen=True)
class Advice:
    """What to type for what a terminal has no room for.

    Attributes
    ----------
    columns
        For the columns that are left out.
    cells
        For the texts that are cut short.
    rows
        For the rows.
    """

    columns: str = "--columns shows them, a pipe has all"
    cells: str = "a pipe has the whole of it"
    rows: str = "--limit N shows more, a pipe or -o FILE has all"


def is_interactive() -> bool:
    """Whether somebody sits before a terminal: stdin and stdout are one."""
    return sys.stdin.isatty() and sys.stdout.isatty()


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
    intervals: "Intervals | None" = None,
    lines_of_cell: int = LINES_OF_CELL,
    advice: Advice = Advice(),
    footer: bool = True,
) -> "Result":
    """Print rows, or write them to a file with its sidecar; say so where rows are cut off.

    Where there are none, say why, and write no file unless that is allowed. On a terminal a cell
    of a table takes up to ``lines_of_cell`` lines. ``footer`` names the run below a table for a
    paper.

    Returns
    -------
    Result
        The rows that were asked for, as they were printed.
    """
    from moedb.queries.results.formats.rendering import format_of_path
    from moedb.queries.results.rows.refinement import Refinement, column_names, refined
    from moedb.queries.results.rows.streaming import RowStream
    from moedb.queries.results.sheets import LACKING, TableOptions

    chosen = format_ or (format_of_path(output) if output else "table")
    result = refined(result, Refinement(where, order_by))
    named = None if columns is None else column_names(columns)
    options = TableOptions(limit=limit, columns=named, intervals=intervals, footer=footer)
    if output is not None:
        from moedb.queries.results.export import export_counted

        written = export_counted(result, output, options, chosen, allow_empty)
        for path in written.paths:
            say(f"wrote {path}")
        n_rows, truncated = written.n_rows, written.truncated
    else:
        stream = RowStream.of(result, options.in_format("table" if chosen == LINE else chosen))
        if chosen == LINE:
            stream = _show_records(result, options, no_pager, advice)
        elif chosen == "table" and sys.stdout.isatty() and result.view is not None and not named:
            stream = _show_view(result, result.view, limit, no_pager, advice)
        elif chosen == "table" and sys.stdout.isatty():
            # a column that was asked about is not left out
            words = set(re.findall(r"\w+", f"{where or ''} {order_by or ''}"))
            # an end is in the cells of its estimate
            of_ends = {name for name, ends in stream.fold.ends.items() if words & set(ends)}
            stream = _show(result, options, no_pager, lines_of_cell, words | of_ends, advice)
        else:
            _print(stream, chosen, options)
        n_rows, truncated = stream.n_rows, stream.truncated
        if stream.lacks_an_end:
            say(LACKING)
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
    advice: Advice,
) -> "RowStream":
    """Print a table on a terminal: as wide as that is, and a screen at a time."""
    from moedb.queries.results.formats.fitting import fit
    from moedb.queries.results.rows.streaming import RowStream

    pager = _pager(no_pager)
    stream = RowStream.of(result, replace(options, limit=_limit(options.limit, pager)))
    table = fit(stream, shutil.get_terminal_size().columns, options.columns is not None, asked)
    _put(table.lines(lines_of_cell), pager)
    if table.left_out:
        named = ", ".join(table.left_out)
        say(f"not shown: {named}; {advice.columns}")
    if table.cut:
        say(f"cut short: {', '.join(table.cut)}; {advice.cells}")
    _say_truncated(result, stream, options.limit, advice)
    return stream


def _show_records(
    result: "Result", options: "TableOptions", no_pager: bool, advice: Advice
) -> "RowStream":
    """Print rows one below the other, a line for each column."""
    from moedb.queries.results.formats.plain import record_lines
    from moedb.queries.results.rows.streaming import RowStream

    if not sys.stdout.isatty():
        stream = RowStream.of(result, options)
        for line in record_lines(stream.columns, stream.rows()):
            click.echo(line, color=True)
        return stream
    pager = _pager(no_pager)
    stream = RowStream.of(result, replace(options, limit=_limit(options.limit, pager)))
    _put(record_lines(stream.columns, stream.rows()), pager)
    _say_truncated(result, stream, options.limit, advice)
    return stream


def _show_view(
    result: "Result", view: "View", limit: int | None, no_pager: bool, advice: Advice
) -> "RowStream":
    """Show rows on a terminal in the way that their question has for it."""
    from moedb.queries.results.rows.streaming import RowStream

    pager = _pager(no_pager)
    stream = RowStream(result, _limit(limit, pager))
    names = result.columns
    rows = (dict(zip(names, row, strict=True)) for row in stream.rows())
    _put(view(rows, shutil.get_terminal_size().columns), pager)
    if stream.n_rows:
        say(f"as a table: --columns {','.join(names[:3])},...; a pipe has all columns")
    _say_truncated(result, stream, limit, advice)
    return stream


def _pager(no_pager: bool) -> list[str] | None:
    from moedb.commands.terminal.pager import find_pager

    return None if no_pager else find_pager()


def _limit(asked: int | None, pager: list[str] | None) -> int:
    if asked is not None:
        return asked
    return TERMINAL_ROWS if pager is None else PAGED_ROWS


def _put(lines: "Iterable[str]", pager: list[str] | None) -> None:
    """Print lines, in a pager where they are more than a screen."""
    from moedb.commands.terminal.pager import page

    ended = (line + "\n" for line in lines)
    n_lines = shutil.get_terminal_size().lines
    first = list(islice(ended, n_lines))
    if pager is not None and len(first) == n_lines:
        page(pager, chain(first, ended))
    else:
        for line in chain(first, ended):
            click.echo(line, nl=False, color=True)


def _say_truncated(
    result: "Result", stream: "RowStream", limit: int | None, advice: Advice
) -> None:
    if stream.truncated and limit is None:
        counted = result.count_within(_PATIENCE)
        of = "more" if counted is None else f"{counted:,}"
        say(f"{stream.n_rows:,} of {of} rows; {advice.rows}")


_PATIENCE = 2.0
"""Seconds that counting the rows left out may take."""
