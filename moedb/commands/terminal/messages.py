"""What is said on stderr, and short answers on stdout."""

import logging
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from moedb.queries.results.visible import visible_lines
from moedb.store.reading.places.file_systems import without_secrets

if TYPE_CHECKING:
    from moedb.queries.results.result import Result
    from moedb.store.copying.mirror import Mirror


def say(text: str) -> None:
    """Tell the user something, on stderr; what is in it cannot act on the terminal.

    On a terminal lines end between words. Indented ones are to be typed, and stay whole.
    """
    shown = visible_lines(text)
    if sys.stderr.isatty():
        shown = "\n".join(map(_wrapped, shown.splitlines()))
    click.echo(shown, err=True)


def answer(text: str) -> None:
    """Print one line of an answer on stdout, as safe to look at."""
    click.echo(visible_lines(text))


def say_of_mirror(mirror: "Mirror | None") -> None:
    """Say what became of the mirror of a run, and the command that finishes it, if need be."""
    if mirror is None:
        return
    if mirror.problem is not None:
        say(f"not mirrored, or not all of it: {mirror.problem.message}\n  {mirror.command}")
    elif mirror.copied is not None and mirror.copied.others:
        others = ", ".join(mirror.copied.others[:5])
        say(f"the mirror has these units from another writer: {others}")


def say_sources(
    result: "Result", one_run: str = "for one of them: --run RUN, or where run_id = '...'"
) -> None:
    """Say on stderr which runs a result is from, whether one was meant, and what to mind of it."""
    provenance = result.provenance
    say(provenance.footer())
    if result.caution is not None:
        say(f"note: {result.caution}")
    if not provenance.certain:
        incomplete = sum(run.status != "complete" for run in provenance.runs)
        say(
            f"the SQL reads the tables of {len(provenance.runs)} runs together"
            + (f", {incomplete} of them incomplete" if incomplete else "")
            + f"; {one_run}"
        )


class SafeFormatter(logging.Formatter):
    """Formats log messages as :func:`say` does, without keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and the traceback if it has one."""
        return visible_lines(without_secrets(super().format(record)))


def _wrapped(line: str) -> str:
    if line.startswith(" "):
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) or line
