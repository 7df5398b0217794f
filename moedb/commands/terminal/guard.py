"""The exit code, and what is said of what goes wrong."""

import atexit
import io
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click

from moedb.commands.terminal.messages import say
from moedb.errors import MoedbError
from moedb.store.engine.execution import is_anything_running
from moedb.store.engine.spilling import delete_spill
from moedb.store.reading.places.file_systems import without_secrets

INTERRUPTED = 130
"""The exit code of what the user stopped."""

_INTERRUPTED = "interrupted; what a capture committed stays, and the same command resumes"


class ReaderGoneError(Exception):
    """Whoever read stdout has closed it, as ``head`` does: no error."""


class GuardedGroup(click.Group):
    """The root of the commands; a closed stdout reaches :func:`run_guarded`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would end the process with 1 where stdout is closed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


def _show(error: click.ClickException) -> None:
    text = io.StringIO()
    error.show(text)
    say(text.getvalue().rstrip("\n"))


def leave(code: int) -> NoReturn:
    """End the process, at once where it was interrupted or an interrupted query still runs."""
    if is_anything_running():
        _end_at_once(code)
    if code == INTERRUPTED:
        # threads of DuckDB that an interrupt has left abort the process where it ends slowly
        atexit._run_exitfuncs()
        _end_at_once(code)
    sys.exit(code)


def _end_at_once(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    delete_spill()
    os._exit(code)


def run_guarded(command: click.Command, arguments: list[str]) -> int:
    """Run ``command`` with ``arguments``; turn what goes wrong into text and an exit code."""
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        command.main(arguments, prog_name="moedb", standalone_mode=False)
        return 0
    except (click.Abort, KeyboardInterrupt) as error:
        declined = isinstance(error, click.Abort) and error.__cause__ is None
        say("stopped" if declined else _INTERRUPTED)
        return INTERRUPTED
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except ReaderGoneError:
        # The reader of stdout has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MoedbError as error:
        if verbose:
            say(without_secrets(traceback.format_exc().rstrip("\n")))
        say(f"Error: {error}")
        return error.exit_code
    except Exception as error:
        if verbose:
            say(without_secrets(traceback.format_exc().rstrip("\n")))
        say(without_secrets(f"Error: {type(error).__name__}: {error}"))
        say("  this is not an error that moedb expects; moedb -v ... shows where it comes from")
        return 1
