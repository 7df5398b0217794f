"""Bringing runs elsewhere: to another store, and to people who have no moedb."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.options import StorePath, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.messages import answer
from moedb.errors import StoreDamagedError

if TYPE_CHECKING:
    from moedb.store.copying.runs import Copied


@click.command(short_help="Copy runs to another store, in a folder or on object storage.")
@click.argument("source", type=StorePath())
@click.argument("target", type=StorePath())
@click.option(
    "-r", "--run", "runs", multiple=True, help="A run; may be repeated.  [default: all of them]"
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Replace files of TARGET that no manifest names, which a stopped copy left there.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and stop.")
def copy(
    source: Path | str, target: Path | str, runs: tuple[str, ...], take_over: bool, dry_run: bool
) -> None:
    """Copy runs of the store SOURCE to the store TARGET, each file against its hash.

    Both are folders, or addresses such as s3://BUCKET/PREFIX. Readers of TARGET see a complete run
    when all of it is there, and the units of an incomplete one as they come. The same command again
    goes on where it was stopped, and brings what was added to a run since; what is there is not
    brought again. Journals of labelling (answers/) are not copied.

    \b
    Example:
      moedb copy moedb-store s3://bucket/moe
      moedb copy s3://bucket/moe moedb-store --run qwen-ioi-3f
      moedb copy moedb-store /mnt/backup --dry-run
    """
    from moedb.commands.api.progress import FilesProgress
    from moedb.store.copying.runs import copy_runs, source_of, target_of

    found = source_of(source)
    with FilesProgress("copying") as progress:
        place = target_of(target)
        for done in copy_runs(
            found, place, runs, take_over=take_over, dry_run=dry_run, progress=progress
        ):
            answer(f"{done.run_id}: {_what_became(done, dry_run)}")
    if found.damaged and not runs:
        raise StoreDamagedError(
            f"damaged, and not copied: {', '.join(sorted(found.damaged))}",
            "restore them, and run the same command again",
        )


@click.command(short_help="Write runs as plain Parquet with a card, for a hub of data sets.")
@click.argument("runs", nargs=-1, required=True, shell_complete=complete_runs)
@click.option(
    "--to",
    required=True,
    metavar="FOLDER|hf://NAME/DATASET",
    help="A new folder, or a data set of the hub, which is made if need be.",
)
@click.option("--with-texts", is_flag=True, help="Write examples.text, tokens.token and requests.")
@click.option("--arrays", is_flag=True, help="Write the arrays.")
@click.option("--license", help="What the card says of the licence, such as cc-by-4.0.")
@click.option("--public", is_flag=True, help="A new data set of the hub is for all to see.")
@store_option
def publish(
    runs: tuple[str, ...],
    to: str,
    with_texts: bool,
    arrays: bool,
    license: str | None,
    public: bool,
) -> None:
    """Write RUNS as a data set: a folder of plain Parquet for each table, and a card.

    The card, README.md, says what the columns hold, of which models the runs are, and how to read
    and cite them; the hub of Hugging Face shows the tables by it. Texts are left out, as their
    licence is seldom yours: those columns are null.

    \b
    Example:
      moedb publish qwen-ioi-3f --to routing-of-qwen
      moedb publish qwen-ioi-3f text-9c --to hf://me/routing --license cc-by-4.0
    """
    from moedb.commands.api.copying import publish as published

    store = click.get_current_context().find_root().params.get("store")
    done = published(
        runs,
        to,
        store,
        with_texts=with_texts,
        arrays=arrays,
        license=license,
        public=public,
    )
    size = f"{done.n_files} files ({done.n_bytes / 1e6:,.1f} MB)"
    answer(f"{to}: {', '.join(done.runs)}: {size}")


def _what_became(done: "Copied", dry_run: bool) -> str:
    if done.state == "same":
        return "is there already: nothing to do"
    if done.state == "ahead":
        return "is there already, with more than is here: nothing to do"
    which = "" if done.is_complete else " of an incomplete run"
    others = f"; {len(done.others)} units are there from another writer" if done.others else ""
    verb = "to copy" if dry_run else "copied"
    return f"{done.n_files:,} files ({done.n_bytes / 1e6:,.1f} MB){which} {verb}{others}"
