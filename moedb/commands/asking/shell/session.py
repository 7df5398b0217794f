"""What a shell has open, and how it runs what is typed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.commands.asking.shell.completion import DOT_COMMANDS, MODES
from moedb.commands.terminal.emitting import LINES_OF_CELL, Advice, emit
from moedb.commands.terminal.messages import say, say_sources
from moedb.errors import UsageError, did_you_mean

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

    def show(self, result: "Result", lines_of_cell: int = LINES_OF_CELL) -> None:
        """Print rows in the chosen mode."""
        emit(
            *(result, self.mode, None, None),
            no_pager=self._no_pager,
            lines_of_cell=lines_of_cell,
            advice=ADVICE,
        )

    def answer(self, ask: "Callable[[], Result]") -> None:
        """Print the rows of a question, and say where they are from, unless as those before."""
        begun = time.monotonic()
        self._last = result = ask()
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

    def ask(self, statement: str) -> None:
        """Run one SQL statement, and print its rows."""
        self.answer(lambda: self.database.sql(statement, run=self.run))


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
