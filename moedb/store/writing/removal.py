"""Deleting runs: a run is whole until it is renamed, and from then on gone."""

import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import RunNotFoundError, StoreDamagedError, StoreError, did_you_mean
from moedb.store.containment import check_file, check_folder, is_link
from moedb.store.files import sync_directory
from moedb.store.layout import DELETED, RunLayout, deleted_folder, runs_folder
from moedb.store.reading.listing import check_store, removable_names
from moedb.store.reading.naming import read_name

LOCK_SECONDS = 60.0
"""How long a deletion waits for a writer that is committing a unit."""


def removable_run(store: Path, run: str) -> str:
    """The stored name of a run that may be damaged, by that name or the one given to it, whole.

    Raises
    ------
    RunNotFoundError
        If the store has no such run, or several that are called so.
    """
    check_store(store)
    known = removable_names(store)
    if run in known:
        return run
    given = {run_id: name for run_id in known if (name := _given_name(store, run_id)) is not None}
    called = [run_id for run_id, name in given.items() if name == run]
    if len(called) == 1:
        return called[0]
    begun = called or [
        run_id
        for run_id in known
        if run and (run_id.startswith(run) or given.get(run_id, "").startswith(run))
    ]
    if begun:
        what = "the name" if called else "the beginning of the name"
        raise RunNotFoundError(
            f"no run named {run!r} in {store}; to delete a run takes its whole name, and "
            f"{run!r} is {what} of {', '.join(begun)}",
            "   or   ".join(f"moedb rm {run_id}" for run_id in begun),
        )
    raise RunNotFoundError(
        f"no run named {run!r} in {store}; {did_you_mean(run, [*known, *given.values()])}",
        "moedb runs",
    )


def _given_name(store: Path, run_id: str) -> str | None:
    try:
        return read_name(RunLayout(store, run_id)).name
    except StoreDamagedError:  # such a run can be deleted, too
        return None


def remove_run(store: Path, run_id: str) -> None:
    """Delete a run; a kill at any moment leaves it whole, or gone.

    The run may be damaged; its name must be whole. Of a link the link is deleted, and not what it
    leads to.

    Raises
    ------
    RunNotFoundError
        If the store has no run of this name.
    StoreError
        If the store cannot be written to, or a writer keeps the run locked.
    """
    run_id = removable_run(store, run_id)
    folder = RunLayout(store, run_id).folder
    try:
        if is_link(folder):
            folder.unlink()
            sync_directory(folder.parent)
        else:
            _delete(_set_aside(store, run_id))
    except Timeout as error:
        raise StoreError(
            f"run {run_id} is being written: its lock was not free for {LOCK_SECONDS:.0f} s",
            "stop the capture first",
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot delete run {run_id}: {error.filename or folder}: {error.strerror}",
            "deleting takes the right to write in the store",
        ) from error
    sweep_deleted(store)


def _set_aside(store: Path, run_id: str) -> Path:
    """Give a run a name that no reader takes for a run's, while no writer commits to it."""
    layout, target = RunLayout(store, run_id), deleted_folder(store, run_id)
    try:
        check_file(layout.lock)
    except StoreDamagedError:  # no writer takes such a lock
        layout.folder.rename(target)
    else:
        with FileLock(layout.lock, timeout=LOCK_SECONDS):
            layout.folder.rename(target)
    sync_directory(target.parent)
    return target


def _delete(folder: Path) -> None:
    while folder.exists():
        with suppress(FileNotFoundError):  # another process is sweeping it
            shutil.rmtree(folder)


def sweep_deleted(store: Path) -> None:
    """Delete what is left of runs whose deletion was stopped."""
    folder = runs_folder(store)
    for path in folder.iterdir() if check_folder(folder) else []:
        if DELETED.fullmatch(path.name) and not is_link(path):
            shutil.rmtree(path, ignore_errors=True)
