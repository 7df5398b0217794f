"""How sure: intervals beside what a query gives."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from moedb.commands.options import COUNT, SEED
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.queries.database import Database

Command = TypeVar("Command", bound=Callable[..., object])

METHODS = ("bca", "percentile", "jackknife")
_KEPT = "moedb.intervals"


def _keep(context: click.Context, option: click.Parameter, given: object) -> None:
    context.meta.setdefault(_KEPT, {})[str(option.name)] = given


def interval_options(command: Command) -> Command:
    """Add ``--ci`` and what it goes by."""
    for option in (
        click.option(
            "--seed",
            type=SEED,
            expose_value=False,
            callback=_keep,
            help="With --ci, the seed of the drawing.  [default: 0]",
        ),
        click.option(
            "--samples",
            type=COUNT,
            expose_value=False,
            callback=_keep,
            help="With --ci, how often clusters are drawn.  [default: 1000]",
        ),
        click.option(
            "--cluster",
            metavar="KEY",
            expose_value=False,
            callback=_keep,
            help="With --ci, the label whose examples of one value are drawn together.  [default: "
            "document, or a prompt and its twin]",
        ),
        click.option(
            "--ci",
            "method",
            is_flag=False,
            flag_value=METHODS[0],
            type=click.Choice(METHODS),
            expose_value=False,
            callback=_keep,
            help="Give 95 % intervals beside estimates, in columns *_low and *_high: a bootstrap "
            "over clusters of examples; jackknife leaves them out one by one.  [bca unless "
            "another is named]",
        ),
    ):
        command = option(command)
    return command


def with_chosen_intervals(database: "Database") -> "Database":
    """Return the database with the intervals that the command line asks for."""
    given = click.get_current_context().meta.get(_KEPT, {})
    chosen = {name: value for name, value in given.items() if value is not None}
    if "method" not in chosen:
        if chosen:
            name = next(iter(chosen))
            raise UsageError(f"--{name} is for intervals", f"--ci --{name} {chosen[name]}")
        return database
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling

    return database.resampled(Resampling(**chosen))
