"""What reaches the user: rows on stdout, everything else on stderr, and the exit code."""

import io
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from moedb.errors import MoedbError, UsageError
from moedb.queries.results.visible import visible_lines
from moedb.store.engine.execution import is_anything_running
from moedb.store.engine.spilling import delete_spill

if TYPE_CHECKING:
    from moedb.queries.results.result import Result

TERMINAL_ROWS = 100
"""Rows of a table on a terminal, where --limit does not say."""

_INTERRUPTED = "interrupted; what a capture committed stays, and the same command resumes"


def say(text: str) -> None:
    """Tell the user something, on stderr; what is in it cannot act on the terminal."""
    click.echo(visible_lines(text), err=True)


def answer(text: str) -> None:
    """Print one line of an answer on stdout, as safe to look at."""
    click.echo(visible_lines(text))


class SafeFormatter(logging.Formatter):
    """Formats log messages as :func:`say` does."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and the traceback if it has one."""
        return visible_lines(super().format(record))


def emit(
    result: "Result",
    format_: str | None,
    output: Path | None,
    limit: int | None,
    allow_empty: bool = False,
) -> None:
    """Print rows, or write them to a file with its sidecar; say so where rows are cut off.

    Where there are none, say why, and write no file unless that is allowed.
    """
    from moedb.queries.results.formats.rendering import format_of_path, render_sheet
    from moedb.queries.results.sheets import TableOptions, arrange

    chosen = format_ or (format_of_path(output) if output else "table")
    if limit is None and chosen == "table" and output is None and sys.stdout.isatty():
        limit = TERMINAL_ROWS
    options = TableOptions(limit=limit)
    sheet = arrange(result, options)
    if output is not None:
        from moedb.queries.results.export import export_sheet
        from moedb.queries.results.files import check_folder

        check_folder(output)
        for path in export_sheet(sheet, output, options, chosen, allow_empty=allow_empty):
            say(f"wrote {path}")
    else:
        rendered = render_sheet(sheet, chosen, options)
        if isinstance(rendered, bytes) and sys.stdout.isatty():
            raise UsageError(f"{chosen} is not for a terminal", "name a file: -o FILE")
        # click takes escape sequences out of what goes to no terminal: data are exact
        click.echo(rendered, nl=False, color=True)
    if not sheet.rows and not sheet.truncated:
        say(f"no rows: {result.why_empty()}")
    if sheet.truncated:
        say(f"only the first {limit} rows; more with --limit N")


def _show(error: click.ClickException) -> None:
    text = io.StringIO()
    error.show(text)
    say(text.getvalue().rstrip("\n"))


def leave(code: int) -> NoReturn:
    """End the process, at once where an interrupted query still runs."""
    if is_anything_running():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        delete_spill()
        os._exit(code)
    sys.exit(code)


def run_guarded(command: click.Command, arguments: list[str]) -> int:
    """Run ``command`` with ``arguments``; turn what goes wrong into text and an exit code."""
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        command.main(arguments, prog_name="moedb", standalone_mode=False)
        return 0
    except (click.Abort, KeyboardInterrupt) as error:
        declined = isinstance(error, click.Abort) and error.__cause__ is None
        say("stopped" if declined else _INTERRUPTED)
        return 130
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MoedbError as error:
        if verbose:
            say(traceback.format_exc().rstrip("\n"))
        say(f"Error: {error}")
        return error.exit_code
    except Exception as error:
        if verbose:
            say(traceback.format_exc().rstrip("\n"))
        say(f"Error: {type(error).__name__}: {error}")
        say("  this is not an error that moedb expects; moedb -v ... shows where it comes from")
        return 1
