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

LOCK_SECONDS = 60.0
"""How long a deletion waits for a writer that is committing a unit."""


def check_removable(store: Path, run_id: str) -> None:
    """Check that the store has a run of this name, which must be whole. It may be damaged.

    Raises
    ------
    RunNotFoundError
        If it hasn't.
    """
    check_store(store)
    known = removable_names(store)
    if run_id in known:
        return
    begun = [name for name in known if run_id and name.startswith(run_id)]
    if begun:
        raise RunNotFoundError(
            f"no run named {run_id!r} in {store}; to delete a run takes its whole name, and "
            f"{run_id!r} is the beginning of {', '.join(begun)}",
            "   or   ".join(f"moedb rm {name}" for name in begun),
        )
    raise RunNotFoundError(
        f"no run named {run_id!r} in {store}; {did_you_mean(run_id, known)}", "moedb runs"
    )


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
    check_removable(store, run_id)
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
