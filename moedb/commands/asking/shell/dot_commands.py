"""The commands of the shell that are no SQL."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.commands.asking.shell.completion import DOT_COMMANDS, MODES
from moedb.commands.asking.shell.session import EndOfShell, Session, command_of, mode_of
from moedb.commands.terminal.messages import answer, say
from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from moedb.queries.results.result import Result


def run_dot_command(session: Session, line: str) -> None:
    """Run a command such as ``.schema routing``.

    Raises
    ------
    UsageError
        If there is no such command, or it takes something else.
    EndOfShell
        If it ends the shell.
    """
    try:
        name, *words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"cannot read {line!r}: {error}", ".help") from error
    _COMMANDS[command_of(name)](session, words)


def _help(session: Session, words: Sequence[str]) -> None:
    answer("SQL ends with a semicolon; TAB offers what may come next. Else:")
    for name, does in DOT_COMMANDS.items():
        answer(f"  {name:<9} {does}")


def _mode(session: Session, words: Sequence[str]) -> None:
    if not words:
        answer(session.mode)
        return
    session.mode = mode_of(_only(words, f".mode {'|'.join(MODES)}"))


def _run(session: Session, words: Sequence[str]) -> None:
    if not words:
        session.show(session.database.runs())
        say(f"tables and views hold {'every run' if session.run is None else session.title}")
        return
    name = _only(words, ".run RUN")
    session.run = None if name == "all" else session.database.snapshot.run(name).run_id


def _tables(session: Session, words: Sequence[str]) -> None:
    from moedb.queries.guidance.schema import schema_list

    found = schema_list()
    named = found.relation.filter("kind in ('table', 'view')").project("name, kind, holds")
    session.show(found.of(named), lines_of_cell=1)


def _schema(session: Session, words: Sequence[str]) -> None:
    from moedb.queries.guidance.schema import describe, schema_list

    if not words:
        session.show(schema_list(), lines_of_cell=1)
        return
    described = describe(_only(words, ".schema NAME"))
    session.show(described.result)
    say(described.about)


def _queries(session: Session, words: Sequence[str]) -> None:
    session.show(session.database.queries(), lines_of_cell=1)
    say("in SQL with underscores, from NAME(...), but for those in Python; else .query NAME")


def _query(session: Session, words: Sequence[str]) -> None:
    if not words:
        raise UsageError("which query?", ".query NAME [KEY=VALUE ...]")
    session.answer(lambda: _asked(session, words[0], words[1:]))


def _export(session: Session, words: Sequence[str]) -> None:
    session.export(Path(_only(words, ".export FILE")))


def _plot(session: Session, words: Sequence[str]) -> None:
    from moedb.queries.figures.drawing import draw
    from moedb.queries.figures.registry import PLOTS

    if len(words) < 2:
        raise UsageError("a figure needs the name of a query and a file", ".plot NAME FILE.pdf")
    name, file, *given = words
    if name not in PLOTS:
        raise UsageError(
            f"there is no figure of {name!r}; {did_you_mean(name, PLOTS)}", "moedb plot"
        )
    for path in draw(name, _asked(session, name, given), file):
        say(f"wrote {path}")


def _timing(session: Session, words: Sequence[str]) -> None:
    wanted = words[0] if words else ("off" if session.is_timed else "on")
    if wanted not in ("on", "off"):
        raise UsageError(f".timing is on or off, not {wanted!r}", ".timing on")
    session.is_timed = wanted == "on"
    say(f"timing is {wanted}")


def _quit(session: Session, words: Sequence[str]) -> None:
    raise EndOfShell


_COMMANDS: Mapping[str, Callable[[Session, Sequence[str]], None]] = {
    ".help": _help,
    ".mode": _mode,
    ".run": _run,
    ".tables": _tables,
    ".schema": _schema,
    ".queries": _queries,
    ".query": _query,
    ".export": _export,
    ".plot": _plot,
    ".timing": _timing,
    ".quit": _quit,
}


def _only(words: Sequence[str], usage: str) -> str:
    if len(words) != 1:
        raise UsageError(f"one word is expected, not {len(words)}", usage)
    return words[0]


def _asked(session: Session, name: str, given: Sequence[str]) -> "Result":
    """The rows of a named query, of the chosen run unless another one is given."""
    from moedb.queries.analyses.registry import find_question

    parameters: dict[str, str] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"{each!r} is no KEY=VALUE", f".query {name} layer=3")
        parameters[key] = value
    takes_run = any(parameter.name == "run" for parameter in find_question(name).parameters)
    if session.run is not None and takes_run:
        parameters.setdefault("run", session.run)
    return session.database.query(name, **parameters)
