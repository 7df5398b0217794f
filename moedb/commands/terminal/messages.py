"""What is said on stderr, and short answers on stdout."""

import logging

import click

from moedb.queries.results.visible import visible_lines


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
