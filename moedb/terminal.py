"""What reaches the user: rows on stdout, everything else on stderr, and the exit code."""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.errors import MoedbError, UsageError

if TYPE_CHECKING:
    from moedb.queries.result import Result

TERMINAL_ROWS = 100
"""Rows of a table on a terminal, where --limit does not say."""

_INTERRUPTED = "interrupted; what was committed stays, and the same command resumes"


def say(text: str) -> None:
    """Tell the user something, on stderr."""
    click.echo(text, err=True)


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
    from moedb.queries.formats import format_of_path, render_sheet
    from moedb.queries.sheets import TableOptions, arrange

    chosen = format_ or (format_of_path(output) if output else "table")
    if limit is None and chosen == "table" and output is None and sys.stdout.isatty():
        limit = TERMINAL_ROWS
    options = TableOptions(limit=limit)
    sheet = arrange(result, options)
    if output is not None:
        from moedb.queries.export import check_folder, export_sheet

        check_folder(output)
        for path in export_sheet(sheet, output, options, chosen, allow_empty=allow_empty):
            say(f"wrote {path}")
    else:
        rendered = render_sheet(sheet, chosen, options)
        if isinstance(rendered, bytes) and sys.stdout.isatty():
            raise UsageError(f"{chosen} is not for a terminal", "name a file: -o FILE")
        click.echo(rendered, nl=False)
    if not sheet.rows and not sheet.truncated:
        say(f"no rows: {result.why_empty()}")
    if sheet.truncated:
        say(f"only the first {limit} rows; more with --limit N")


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
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MoedbError as error:
        if verbose:
            traceback.print_exc()
        say(f"Error: {error}")
        return error.exit_code
    except Exception as error:
        if verbose:
            traceback.print_exc()
        say(f"Error: {type(error).__name__}: {error}")
        say("  this is not an error that moedb expects; moedb -v ... shows where it comes from")
        return 1
