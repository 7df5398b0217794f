"""How sure: intervals, and what chance gives, beside what a query tells."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from moedb.commands.options import COUNT, SEED
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.queries.database import Database

Command = TypeVar("Command", bound=Callable[..., object])

METHODS = ("bca", "percentile", "jackknife")
_KEPT = "moedb.doubt"


def _keep(context: click.Context, option: click.Parameter, given: object) -> None:
    context.meta.setdefault(_KEPT, {})[str(option.name)] = given


def draw_options(command: Command) -> Command:
    """Add what is drawn, how often and from where."""
    for option in (
        click.option(
            "--seed",
            type=SEED,
            expose_value=False,
            callback=_keep,
            help="The seed of what is drawn or shuffled.  [default: 0]",
        ),
        click.option(
            "--samples",
            type=COUNT,
            expose_value=False,
            callback=_keep,
            help="How often clusters are drawn, or labels shuffled.  [default: 1000]",
        ),
        click.option(
            "--cluster",
            metavar="KEY",
            expose_value=False,
            callback=_keep,
            help="The label whose examples of one value are drawn together.  [default: "
            "document, or a prompt and its twin]",
        ),
    ):
        command = option(command)
    return command


def doubt_options(command: Command) -> Command:
    """Add ``--ci``, ``--null`` and ``--compare``, and what they go by."""
    for option in (
        draw_options,
        click.option(
            "--compare",
            nargs=2,
            expose_value=False,
            callback=_keep,
            metavar="KEY=A KEY=B",
            help="Give the differences of two label values, layers, splits or runs with their "
            "intervals: --compare split=clean split=held.",
        ),
        click.option(
            "--null",
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_keep,
            help="Say what chance gives, in columns *_null, *_p and *_q: labels shuffled, or "
            "experts chosen alike, --samples times.",
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
            "over clusters of examples; jackknife leaves them out one by one; over trials "
            "Student's t.  [bca unless another is named]",
        ),
    ):
        command = option(command)
    return command


def with_chosen_doubt(database: "Database", always: bool = False) -> "Database":
    """Return the database with the intervals, and the chance, that the command line asks for.

    Where there are ``always`` intervals, it says only how they are found.
    """
    given = click.get_current_context().meta.get(_KEPT, {})
    chosen = {name: value for name, value in given.items() if value is not None}
    has_null = bool(chosen.pop("null", False))
    chosen.pop("compare", None)
    is_compared = always or compared_sides() is not None
    if "method" not in chosen and not has_null and not is_compared:
        if chosen:
            name = next(iter(chosen))
            raise UsageError(f"--{name} is for intervals", f"--ci --{name} {chosen[name]}")
        return database
    from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling

    alike = {name: chosen[name] for name in ("samples", "seed", "cluster") if name in chosen}
    return database.resampled(
        Resampling(**chosen) if "method" in chosen or is_compared else None,
        Null(**alike) if has_null else None,
    )


def chosen_resampling(is_wanted: bool) -> "Resampling | None":
    """How intervals are found that are there unless they are left out; None where they are.

    Raises
    ------
    UsageError
        If it is said how, and they are left out.
    """
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling

    given = click.get_current_context().meta.get(_KEPT, {})
    chosen = {name: value for name, value in given.items() if value is not None}
    if is_wanted:
        return Resampling(**chosen)
    if chosen:
        name = next(iter(chosen))
        raise UsageError(f"--{name} is for intervals, and --no-ci leaves them out", "give one")
    return None


def compared_sides() -> tuple[str, str] | None:
    """What ``--compare`` names; None without it."""
    given: tuple[str, str] | None = click.get_current_context().meta.get(_KEPT, {}).get("compare")
    return given
