"""The store: what it holds, whether it is sound, and deleting from it."""

import sys
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import (
    FiniteRange,
    note_option,
    open_store,
    output_options,
    store_folder,
    store_option,
    store_snapshot,
)
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import answer, say
from moedb.errors import FaultsError, StoreDamagedError, UsageError
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot
    from moedb.store.verification.run import Verification


@click.command()
@output_options
@store_option
def runs(**output: Any) -> None:
    """List the runs of the store.

    \b
    Example:
      moedb runs
    """
    from moedb.queries.guidance.overview import run_list

    emit(run_list(open_store()), **output)


@click.command(short_help="Show a run's settings, layers, tables, arrays and labels.")
@click.argument("run", shell_complete=complete_runs)
@output_options
@store_option
def show(run: str, **output: Any) -> None:
    """Show what RUN is and holds: settings, layers, tables, arrays, labels.

    \b
    Example:
      moedb show qwen-ioi-3f
    """
    from moedb.queries.guidance.overview import run_details

    emit(run_details(open_store(), run), **output)


@click.command(short_help="Call a run by a name of your own, or note something of it.")
@click.argument("run", shell_complete=complete_runs)
@click.argument("name", required=False)
@note_option
@store_option
def name(run: str, name: str | None, note: str | None) -> None:
    """Call RUN by a NAME of your own, which is valid wherever a run is asked for; or note it.

    The name and the note are labels of the run, and may be changed at any time: they are no part of
    what was captured.

    \b
    Example:
      moedb name qwen-ioi-3f first
      moedb name first --note "300 prompts, before the new templates"
    """
    from moedb.schemas.run_names import RunName, check_name
    from moedb.store.reading.snapshot import take_snapshot
    from moedb.store.writing.naming import name_run

    check_name(name)
    if name is None and note is None:
        raise UsageError("give a name, or a note with --note", f"moedb name {run} NAME")
    store = store_folder()
    found = take_snapshot(store).run(run)
    name_run(store, found.run_id, RunName(name, note))
    changed = take_snapshot(store).run(found.run_id)
    noted = "" if changed.named.note is None else f": {changed.named.note}"
    answer(f"run {found.run_id} is {changed.named.name or 'without a name'}{noted}")


@click.command(short_help="List tables, views, macros, functions and arrays, or describe one.")
@click.argument("name", required=False)
@output_options
def schema(name: str | None, **output: Any) -> None:
    """List tables, views, macros, functions and arrays, or describe the one called NAME.

    The macros are the named queries, as they are called in SQL.

    \b
    Example:
      moedb schema
      moedb schema routing
      moedb schema routing_by_class
      moedb schema --where "kind = 'view'"
    """
    from moedb.queries.guidance.schema import describe, schema_list

    if name is None:
        emit(schema_list(), **output)
        return
    described = describe(name)
    emit(described.result, **output)
    say(described.about)


@click.command(short_help="Read runs again: checksums, and what must hold of values.")
@click.argument("run", required=False, shell_complete=complete_runs)
@store_option
def verify(run: str | None) -> None:
    """Read RUN, or every run, again: checksums, and what must hold of the values.

    Everything that is wrong is named, each file with its unit. The values are looked at where
    every file is what was committed. A store on object storage is read where it is.

    \b
    Example:
      moedb verify
      moedb verify --store s3://bucket/moe
    """
    from moedb.commands.api.progress import FilesProgress
    from moedb.store.verification.run import verify as verified

    snapshot = store_snapshot()

    def soundness(run_id: str) -> str:
        with FilesProgress("verifying") as progress:
            found = verified(snapshot, run_id, progress)
        return _soundness(snapshot.runs[run_id], found)

    if run:
        answer(soundness(snapshot.whole_name(run)))
        return
    damaged = []
    for run_id in sorted({**snapshot.runs, **snapshot.damaged}):
        try:
            answer(soundness(run_id))
        except FaultsError as error:
            for fault in error.faults:
                answer(f"{run_id}: damaged: {fault.message}")
            damaged.append(run_id)
    if damaged:
        remedy = "restore them, or remove them: moedb rm RUN"
        if snapshot.remote is not None:
            url = snapshot.remote.url
            remedy = f"delete what is at {url}/runs/RUN, and copy it there: moedb copy DIR {url}"
        raise StoreDamagedError(f"damaged: {', '.join(damaged)}", remedy)


def _soundness(run: "RunSnapshot", found: "Verification") -> str:
    return f"{run.run_id}{'' if run.is_complete else ' (incomplete)'}: {found}"


@click.command(short_help="Write a store of an older format anew.")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
def migrate(source: str, target: str) -> None:
    """Write the runs of SOURCE, a store of an older format, anew in the store TARGET.

    SOURCE stays as it is. Every run is verified once it is written; incomplete ones can be gone on
    with in TARGET. The same command again goes on where it was stopped.

    \b
    Example:
      moedb migrate moedb-store moedb-store-2
    """
    from moedb.store.layout import store_path
    from moedb.store.reading.listing import check_store
    from moedb.store.reading.snapshot import read_run, take_snapshot
    from moedb.store.verification.run import verify_run
    from moedb.store.writing.migration import check_migration, migrate_run

    old, new = store_path(source), store_path(target)
    check_migration(old, new, check_store(old))
    snapshot = take_snapshot(old)
    damaged = []
    for run_id in sorted({**snapshot.runs, **snapshot.damaged}):
        try:
            found = snapshot.run(run_id)
            migrate_run(found, new)
            written = read_run(new, run_id)
            before = f"{found.n_bytes() / 1e6:,.1f} MB before"
            answer(f"{_soundness(written, verify_run(written))}; {before}")
        except StoreDamagedError as error:
            answer(f"{run_id}: damaged, and left out: {error.message}")
            damaged.append(run_id)
    if damaged:
        raise StoreDamagedError(
            f"not in {new}: {', '.join(damaged)}", "restore them, and run the same command again"
        )


@click.command(short_help="Make few large files of a run's many small ones.")
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option(
    "--keep-for",
    type=FiniteRange(0, 10_000),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="How long replaced files stay, for readers that have the run open.",
)
@click.option("--sweep", is_flag=True, help="Delete what was replaced that long ago, and no more.")
@store_option
def compact(run: str | None, keep_for: float, sweep: bool) -> None:
    """Make few large files of the many small ones of RUN's tables, or of every complete run's.

    A run of more than 256 units is compacted when it ends. Readers may go on meanwhile; replaced
    files are deleted by the next compaction, or the next capture, after --keep-for.

    \b
    Example:
      moedb compact text-3f2a9c1b7d
      moedb compact --sweep
    """
    from datetime import timedelta

    from moedb.store.reading.snapshot import take_snapshot
    from moedb.store.writing.complete.compaction import compact_run
    from moedb.store.writing.sweeping import sweep_store
    from moedb.store.writing.writability import check_writable

    store = store_folder()
    snapshot = take_snapshot(store)
    check_writable(store)
    chosen = [snapshot.run(run)] if run else snapshot.runs.values()
    for found in () if sweep else chosen:
        if not run and not found.is_complete:
            say(f"{found.run_id}: incomplete, and left as it is")
            continue
        done = compact_run(store, found.run_id, timedelta(minutes=keep_for))
        if done is None:
            say(f"{found.run_id}: nothing to do")
        else:
            answer(f"{found.run_id}: {done.files_after} files of {done.files_before}")
    n_files = sweep_store(store)
    if sweep:
        say(f"{n_files} files deleted")


@click.command(short_help="Delete a run.")
@click.argument("run", shell_complete=complete_runs)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
def rm(run: str, yes: bool) -> None:
    """Delete RUN from the store; its name, or the one given to it, must be whole.

    \b
    Example:
      moedb rm qwen-ioi-3f2a9c1b7d
    """
    from moedb.store.writing.removal import removable_run, remove_run

    run = removable_run(store_folder(), run)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"deleting {run} wants a yes", f"moedb rm {run} --yes")
        asked = visible(f"Delete {run} from {store_folder()}?")
        click.confirm(asked, abort=True, err=True)
    remove_run(store_folder(), run)
    say(f"deleted {run}")
