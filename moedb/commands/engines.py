"""The options that choose what runs the SQL."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.store.engine.spark.settings import SparkSettings

Command = Callable[..., Any]

_CHOSEN = "moedb.spark"


def engine_options(command: Command) -> Command:
    """Add what chooses the engine of a command's questions."""

    @click.option(
        "--engine",
        type=click.Choice(["duckdb", "spark"]),
        default="duckdb",
        show_default=True,
        help="What runs the SQL.",
    )
    @click.option(
        "--master", metavar="URL", help="Spark's master.  [default: as Spark's own, or local[*]]"
    )
    @click.option("--remote", metavar="URL", help="A Spark Connect server: sc://HOST:PORT.")
    @functools.wraps(command)
    def with_engine(
        *args: Any, engine: str, master: str | None, remote: str | None, **kwargs: Any
    ) -> Any:
        if engine == "spark":
            from moedb.store.engine.spark.settings import SparkSettings

            click.get_current_context().meta[_CHOSEN] = SparkSettings(master, remote)
        elif master is not None or remote is not None:
            raise UsageError("--master and --remote are Spark's", "add --engine spark")
        return command(*args, **kwargs)

    return with_engine


def chosen_spark() -> "SparkSettings | None":
    """The Spark that the options of the running command choose; None for DuckDB."""
    found: SparkSettings | None = click.get_current_context().meta.get(_CHOSEN)
    return found
