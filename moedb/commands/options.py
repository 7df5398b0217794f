"""The options that commands share, one decorator for each set, and the store that they name."""

import functools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moedb.capture.models.placement import DEVICE_MAPS
from moedb.commands.terminal.completion import complete_parameters, complete_runs
from moedb.errors import UsageError
from moedb.schemas.formats import FONT_SIZES, FORMATS

if TYPE_CHECKING:
    from moedb.capture.pipeline.units import Shard
    from moedb.queries.database import Database
    from moedb.store.copying.mirror import Mirror
    from moedb.store.reading.snapshot import Snapshot

Command = Callable[..., Any]


class StorePath(click.Path):
    """The folder of a store, or its address."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """Leave addresses as they are."""
        from moedb.store.layout import is_url

        return str(value) if is_url(value) else Path(value)


def store_option(command: Command) -> Command:
    """Add ``--store``; it may also stand before the command's name."""

    @click.option(
        "--store",
        type=StorePath(),
        help="The store's folder; to read, also s3://BUCKET/PREFIX.  [default: MOEDB_STORE, or "
        "./moedb-store]",
    )
    @functools.wraps(command)
    def with_store(*args: Any, store: Path | str | None, **kwargs: Any) -> Any:
        if store is not None:
            click.get_current_context().find_root().params["store"] = store
        return command(*args, **kwargs)

    return with_store


def store_folder() -> Path:
    """Return the folder that ``--store`` names, else the default; an address is refused."""
    from moedb.queries.database import chosen_store

    return chosen_store(click.get_current_context().find_root().params.get("store"))


def store_snapshot() -> "Snapshot":
    """The runs of the store that ``--store`` names, else the default."""
    from moedb.queries.database import chosen_snapshot

    return chosen_snapshot(click.get_current_context().find_root().params.get("store"))


def open_store() -> "Database":
    """Open the store that ``--store`` names, else the default."""
    from moedb.commands.engines import chosen_spark
    from moedb.queries.database import open_database

    named = click.get_current_context().find_root().params.get("store")
    return open_database(named, spark=chosen_spark())


class FiniteRange(click.FloatRange):
    """A number within limits; what is no number is refused, as it lies within any limits."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number, and check that it is one."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number in the range {self._describe_range()}.", param, ctx)
        return number


SEED = click.IntRange(0, 2**31 - 1)
COUNT = click.IntRange(1)
"""A number of things of which there must be one."""

GIGABYTES = 1_000_000
"""GB at most, in options that take them."""

limit_option = click.option("--limit", type=click.IntRange(0), help="Rows at most.")
allow_empty_option = click.option(
    "--allow-empty", is_flag=True, help="Write a file even where there are no rows for it."
)


intervals_option = click.option(
    "--intervals",
    type=click.Choice(["brackets", "plus-minus", "columns"]),
    help="How intervals are shown: '0.25 [0.22, 0.28]', '0.25 ± 0.03' where both ends are as far, "
    "or columns of their own, as in CSV, JSON and Parquet.  [default: brackets with --ci or "
    "--null, else columns]",
)

columns_option = click.option("--columns", help="Columns to show, in order, with commas between.")


def refinement_options(command: Command) -> Command:
    """Add what picks rows of a result, and puts them in order."""
    for option in (
        click.option(
            "--order-by",
            metavar="COLUMNS",
            help="Put the rows in this order, such as 'lift desc,layer'.",
        ),
        click.option(
            "--where",
            metavar="CONDITION",
            help="Only the rows for which this holds, in SQL over the result's columns.",
        ),
    ):
        command = option(command)
    return command


OUTPUT = (
    "format_",
    "output",
    "limit",
    "allow_empty",
    "columns",
    "where",
    "order_by",
    "no_pager",
    "intervals",
)
"""The names of what :func:`output_options` adds, as :func:`~.terminal.emitting.emit` takes them."""


def output_options(command: Command) -> Command:
    """Add the options of every command that yields rows."""
    for option in (
        click.option(
            "--no-pager",
            is_flag=True,
            help="Print long tables on a terminal at once.  [default: through MOEDB_PAGER, or "
            "PAGER, or less]",
        ),
        allow_empty_option,
        limit_option,
        refinement_options,
        intervals_option,
        columns_option,
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead."
        ),
        click.option(
            "--format",
            "format_",
            type=click.Choice(FORMATS),
            help="Format of the rows.  [default: by the ending of -o, else table]",
        ),
    ):
        command = option(command)
    return command


def _read_heads(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    heads: dict[str, str] = {}
    for text in given:
        column, equals, head = text.partition("=")
        if not equals or not column:
            raise UsageError(f"--rename {text!r} is no COLUMN=HEAD", "--rename n=Tokens")
        if column in heads:
            raise UsageError(f"--rename gives {column!r} two heads: {heads[column]!r}, {head!r}")
        heads[column] = head
    return heads


def table_options(command: Command) -> Command:
    """Add the options of a table for a paper."""
    for option in (
        click.option("--no-footer", is_flag=True, help="Leave out the line that names the model."),
        click.option(
            "--pivot",
            nargs=3,
            metavar="ROWS COLUMNS VALUES",
            help="Lay one column's values out over rows and columns of two others.",
        ),
        columns_option,
        intervals_option,
        click.option(
            "--bold",
            type=click.Choice(["row-max", "column-max"]),
            help="Mark the largest value of each row or column.",
        ),
        click.option("--precision", type=click.IntRange(0, 17), help="Digits after the point."),
        click.option(
            "--rename",
            "header_names",
            multiple=True,
            metavar="COLUMN=HEAD",
            callback=_read_heads,
            help="What to print above a column instead of its name; may be repeated.",
        ),
        click.option(
            "--font-size",
            type=click.Choice(FONT_SIZES),
            help="Size of the letters of a LaTeX table.  [default: that of the text]",
        ),
        click.option(
            "--table-star",
            is_flag=True,
            help="LaTeX: a table across both columns of a page.",
        ),
        click.option(
            "--longtable",
            is_flag=True,
            help="LaTeX: a table over several pages, each with its head; where the text has one "
            "column.",
        ),
        click.option("--label", help="LaTeX label."),
        click.option("--caption", help="Caption."),
    ):
        command = option(command)
    return command


def run_option(command: Command) -> Command:
    """Add ``--run``."""
    return click.option(
        "-r",
        "--run",
        shell_complete=complete_runs,
        help="The run, or the beginning of its name.  [default: newest complete that can answer]",
    )(command)


def runs_options(command: Command) -> Command:
    """Add ``--run``, which may name several, and ``--by``."""
    for option in (
        click.option(
            "--by",
            metavar="KEY",
            help="With several runs: a label of runs as a column, and their order, such as step.",
        ),
        click.option(
            "-r",
            "--run",
            shell_complete=complete_runs,
            help="The run, or the beginning of its name; several: RUN,RUN or 'text-*'.  "
            "[default: newest complete that can answer]",
        ),
    ):
        command = option(command)
    return command


def parameter_option(command: Command) -> Command:
    """Add ``-p``."""
    return click.option(
        "-p",
        "--param",
        "parameters",
        nargs=2,
        multiple=True,
        metavar="KEY VALUE",
        shell_complete=complete_parameters,
        help="A parameter of the query; may be repeated.",
    )(command)


def read_numbers(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Read numbers such as 3, 0,2 and 4-7, as a callback of an option."""
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UsageError(f"--{option.name} {text!r}: valid are 3, 0,2 and 4-7")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _read_shard(context: click.Context, option: click.Parameter, text: str | None) -> "Shard":
    from moedb.capture.pipeline.units import parse_shard, shard_of_environment

    return shard_of_environment(os.environ) if text is None else parse_shard(text)


def _checked_name(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    from moedb.schemas.run_names import check_name

    check_name(text)
    return text


def _checked_note(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    from moedb.schemas.run_names import check_note

    check_note(text)
    return text


note_option = click.option(
    "--note", callback=_checked_note, metavar="TEXT", help="What it is, a label of the run."
)


def name_options(command: Command) -> Command:
    """Add ``--name`` and ``--note`` for the run that a command makes."""
    name = click.option(
        "--name",
        callback=_checked_name,
        help="Call the run so, wherever a run is asked for; a label of it.",
    )
    return name(note_option(command))


MIRROR = "moedb.mirror"


def _keep_mirror(context: click.Context, option: click.Parameter, given: Path | str | None) -> None:
    if given is not None and isinstance(given, str):
        from moedb.store.reading.places.file_systems import checked_url

        given = checked_url(given)
    context.meta[MIRROR] = given


mirror_option = click.option(
    "--mirror",
    type=StorePath(),
    expose_value=False,
    callback=_keep_mirror,
    metavar="STORE",
    help="Copy units to this store, such as s3://BUCKET/PREFIX, as they are committed.",
)


def check_mirror() -> None:
    """Check that what reaches the store of ``--mirror`` is there, before anything expensive."""
    given = click.get_current_context().meta.get(MIRROR)
    if given is not None:
        from moedb.store.copying.runs import target_of

        target_of(given)


def mirror_of(run_id: str) -> "Mirror | None":
    """Return the mirror of a run that ``--mirror`` names; None without it."""
    given = click.get_current_context().meta.get(MIRROR)
    if given is None:
        return None
    from moedb.store.copying.mirror import Mirror

    return Mirror(store_folder(), run_id, given)


def capture_options(batch_size: int) -> Callable[[Command], Command]:
    """Add the options of every capture; ``batch_size`` is the default."""

    def decorate(command: Command) -> Command:
        for option in (
            name_options,
            click.option(
                "--seed", type=SEED, default=0, show_default=True, help="Seed of what is drawn."
            ),
            click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: what there is]"),
            click.option(
                "--dtype",
                type=click.Choice(["float32", "bfloat16", "float16"]),
                help="Number format.  [default: the checkpoint's; float32 for small ones on a CPU]",
            ),
            click.option(
                "--batch-size",
                type=COUNT,
                default=batch_size,
                show_default=True,
                help="Examples of a forward pass.",
            ),
            click.option(
                "--budget",
                type=FiniteRange(0, GIGABYTES),
                default=4.0,
                show_default=True,
                help="GB of arrays to keep.",
            ),
            click.option(
                "--tokens",
                default="all",
                show_default=True,
                help="Tokens the arrays keep: all, last, label:KEY, label:KEY=VALUE.",
            ),
            click.option(
                "--per-value",
                type=COUNT,
                help="With --tokens label:KEY, keep at most as many tokens of each value, and from "
                "the same examples as many of none of the values; drawn by --seed.",
            ),
            click.option(
                "--arrays",
                multiple=True,
                metavar="NAME[@LAYERS]",
                help="Arrays to keep: all, none, or names; may be repeated. expert_neurons, "
                "shared_neurons and unembedding only where named.  [default: what fits]",
            ),
            click.option(
                "--expert-similarity",
                type=click.Choice(["weights", "neurons"]),
                help="Compare the weights of every two experts of a layer once, and keep the "
                "cosines; with neurons, each neuron with all of the other expert too, which for "
                "a large model wants a GPU. A model that is read layer by layer is read once more.",
            ),
            click.option(
                "--layers",
                default="all",
                show_default=True,
                help="Layers whose arrays are kept: 0,4-7.",
            ),
            click.option(
                "--shard",
                metavar="I/N",
                callback=_read_shard,
                help="Take share I (from 0) of N, for N processes on one run.  [default: as "
                "SLURM_ARRAY_TASK_ID or torchrun's RANK says, else everything]",
            ),
            mirror_option,
            click.option("--dry-run", is_flag=True, help="Say what would be written, and stop."),
        ):
            command = option(command)
        return command

    return decorate


def placement_options(command: Command) -> Command:
    """Add where the weights of a language model go."""
    for option in (
        click.option(
            "--device-map",
            type=click.Choice(DEVICE_MAPS),
            help="Spread the layers over the GPUs that there are.  [default: one device]",
        ),
        click.option(
            "--max-memory",
            type=FiniteRange(0, GIGABYTES, min_open=True),
            help="GB of weights to hold; a larger model is read layer by layer, once for each "
            "batch, so take a large --batch-size.  [default: 0.6 of what is free]",
        ),
    ):
        command = option(command)
    return command


def language_model_options(command: Command) -> Command:
    """Add ``--model``, what it is and where its weights go, for a language model."""
    command = click.option(
        "--dense",
        is_flag=True,
        help="The model is dense: each feed-forward layer becomes a layer with one expert. A model "
        "with experts is refused; those of its layers that have none are never captured.",
    )(command)
    return click.option(
        "--model",
        default="qwen-moe-mini",
        show_default=True,
        help="The embedded model, a hub id, or a folder.",
    )(placement_options(command))
