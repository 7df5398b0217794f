"""What a shell has open, and how it runs what is typed."""

import logging
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.asking.query import say_sources
from moedb.commands.shell.completion import DOT_COMMANDS, MODES
from moedb.commands.shell.statements import is_dot_command, split_statements
from moedb.commands.terminal.emitting import Advice, emit
from moedb.commands.terminal.messages import say
from moedb.errors import MoedbError, UsageError, did_you_mean
from moedb.store.reading.places.file_systems import without_secrets

if TYPE_CHECKING:
    from moedb.queries.database import Database
    from moedb.queries.results.result import Result

ADVICE = Advice(
    columns=".mode line shows them, .export FILE has all",
    cells=".mode line shows the whole of it",
    rows=".export FILE has all",
)
_ONE_RUN = "for one of them: .run RUN, or where run_id = '...'"


class EndOfShell(Exception):  # noqa: N818  no error
    """The user has ended the shell."""


class Session:
    """A store that stays open, and how its answers are shown.

    Parameters
    ----------
    database
        The store.
    run
        The run that tables and views hold; None for every run.
    mode
        How rows are printed: one of :data:`~.completion.MODES`.
    no_pager
        Whether long tables are printed at once.

    Attributes
    ----------
    database, run, mode
        As given, or as changed since.
    is_timed
        Whether it is said how long a statement takes.
    """

    def __init__(
        self,
        database: "Database",
        run: str | None = None,
        mode: str = MODES[0],
        no_pager: bool = False,
    ) -> None:
        self.database = database
        self.run = None if run is None else database.snapshot.run(run).run_id
        self.mode = mode
        self.is_timed = False
        self._no_pager = no_pager
        self._last: Result | None = None
        self._footer = ""

    @property
    def title(self) -> str | None:
        """What the run is called that was chosen."""
        return None if self.run is None else self.database.snapshot.called(self.run)

    def execute(self, text: str) -> None:
        """Run what was typed: a command of the shell, or statements with or without a semicolon.

        Raises
        ------
        MoedbError
            What is wrong with the first one that fails.
        EndOfShell
            If it ends the shell.
        """
        from moedb.commands.shell.dot_commands import run_dot_command

        if is_dot_command(text):
            run_dot_command(self, text.strip().rstrip(";"))
            return
        statements, rest = split_statements(f"{text}\n;")
        for statement in statements:
            self._run(statement)
        if rest.strip():  # within quotes, or a comment, which nothing ends
            self._run(rest.strip().removesuffix(";").rstrip())

    def execute_safely(self, text: str) -> None:
        """Run what was typed; errors and Ctrl-C are said, and end nothing but that.

        Raises
        ------
        EndOfShell
            If it ends the shell.
        """
        try:
            self.execute(text)
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
            say("  this is not an error that moedb expects; moedb -v shell shows where it is from")

    def show(self, result: "Result", **options: int) -> None:
        """Print rows in the chosen mode."""
        emit(
            result,
            self.mode,
            None,
            None,
            no_pager=self._no_pager,
            advice=ADVICE,
            **options,  # type: ignore[arg-type]
        )

    def answer(self, result: "Result") -> None:
        """Print the rows of a question, and say where they are from, unless as those before."""
        begun = time.monotonic()
        self._last = result
        self.show(result)
        footer = result.provenance.footer()
        if footer != self._footer or result.caution is not None or not result.provenance.certain:
            say_sources(result, _ONE_RUN)
        self._footer = footer
        if self.is_timed:
            say(f"{time.monotonic() - begun:.3f} s")

    def export(self, path: Path) -> None:
        """Write the rows of the last question into a file, with its sidecar."""
        from moedb.queries.results.export import export

        if self._last is None:
            raise UsageError("there are no rows to export yet", "select ...; and then .export FILE")
        for written in export(self._last, path):
            say(f"wrote {written}")

    def _run(self, statement: str) -> None:
        begun = time.monotonic()
        result = self.database.sql(statement, run=self.run)
        asked = time.monotonic() - begun
        self.answer(result)
        if self.is_timed and asked >= 0.1:
            say(f"{asked:.3f} s before, for what runs at once")


def mode_of(text: str) -> str:
    """Return a mode by its name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if text not in MODES:
        raise UsageError(f"there is no mode {text!r}; {did_you_mean(text, MODES)}", ".mode line")
    return text


def command_of(text: str) -> str:
    """Return a command of the shell by its name.

    Raises
    ------
    UsageError
        If there is none.
    """
    known = {".exit": ".quit", ".q": ".quit"}
    name = known.get(text, text)
    if name not in DOT_COMMANDS:
        raise UsageError(f"there is no command {text}; {did_you_mean(text, DOT_COMMANDS)}", ".help")
    return name
