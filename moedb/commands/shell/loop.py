"""What is typed, or stands in a pipe, one statement after the other."""

from collections.abc import Iterable
from functools import cache

from moedb.commands.shell.session import EndOfShell, Session
from moedb.commands.shell.statements import has_sql, is_dot_command, split_statements
from moedb.commands.terminal.messages import say
from moedb.schemas.version import __version__


def run_interactively(session: Session) -> None:
    """Ask for statements on the terminal until the user ends it; errors end nothing."""
    from moedb.commands.shell.names import names_of
    from moedb.commands.shell.prompt import make_prompt

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
            session.execute_safely(text)
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
                session.execute(line)
                continue
            kept += line
            if ";" in line:
                statements, kept = split_statements(kept)
                for statement in statements:
                    session.execute(statement)
        if has_sql(kept):
            session.execute(kept)
    except EndOfShell:
        return
