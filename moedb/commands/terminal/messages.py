"""What is said on stderr, and short answers on stdout."""

import logging
import shutil
import sys
import textwrap

import click

from moedb.queries.results.visible import visible_lines
from moedb.store.reading.places.file_systems import without_secrets


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
