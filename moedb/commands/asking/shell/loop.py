"""What is typed, or stands in a pipe, one statement after the other."""

import logging
import traceback
from collections.abc import Iterable
from functools import cache

import click

from moedb.commands.asking.shell.dot_commands import run_dot_command
from moedb.commands.asking.shell.session import EndOfShell, Session
from moedb.commands.asking.shell.statements import has_sql, is_dot_command, split_statements
from moedb.commands.terminal.messages import say
from moedb.errors import MoedbError
from moedb.schemas.version import __version__
from moedb.store.reading.places.file_systems import without_secrets


def run_interactively(session: Session) -> None:
    """Ask for statements on the terminal until the user ends it; errors end nothing."""
    from moedb.commands.asking.shell.names import names_of
    from moedb.commands.asking.shell.prompt import make_prompt

    snapshot = session.database.snapshot
    runs = "1 run" if len(snapshot.runs) == 1 else f"{len(snapshot.runs)} runs"
    say(f"moedb {__version__}: {snapshot.title}, {runs}. SQL ends with ;  .help  Ctrl-D ends")
    ask = make_prompt(cache(lambda: names_of(session.database)))
    while True:
        try:
            text = ask(session.title)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            execute_safely(session, text)
        except EndOfShell:
            return


def run_stream(session: Session, lines: Iterable[str]) -> None:
    """Run the statements of a text as they come, up to its end.

    Raises
    ------
    MoedbError
        What is wrong with the first one that fails.
    """
    kept = ""
    try:
        for line in lines:
            if not has_sql(kept) and is_dot_command(line):
                execute(session, line)
                continue
            kept += line
            if ";" in line:
                statements, kept = split_statements(kept)
                for statement in statements:
                    session.ask(statement)
        execute(session, kept)
    except EndOfShell:
        return


def execute(session: Session, text: str) -> None:
    """Run what was typed: a command of the shell, or statements; the last may lack its semicolon.

    Raises
    ------
    MoedbError
        What is wrong with the first one that fails.
    EndOfShell
        If it ends the shell.
    """
    if is_dot_command(text):
        run_dot_command(session, text.strip().rstrip(";"))
        return
    statements, rest = split_statements(text)
    for statement in statements:
        session.ask(statement)
    if has_sql(rest):
        session.ask(rest.strip())


def execute_safely(session: Session, text: str) -> None:
    """Run what was typed; errors and Ctrl-C are said, and end nothing but that.

    Raises
    ------
    EndOfShell
        If it ends the shell.
    """
    try:
        execute(session, text)
    except KeyboardInterrupt:
        say("\ninterrupted")
    except EndOfShell:
        raise
    except MoedbError as error:
        say(f"Error: {error}")
    except click.ClickException as error:
        say(f"Error: {error.format_message()}")
    except Exception as error:
        if logging.getLogger().isEnabledFor(logging.INFO):
            say(without_secrets(traceback.format_exc().rstrip("\n")))
        say(without_secrets(f"Error: {type(error).__name__}: {error}"))
        say("  this is not an error that moedb expects; moedb -v shell shows where it comes from")
