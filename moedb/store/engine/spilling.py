"""Where DuckDB puts what does not fit into memory: a folder that goes with the process.

It is deleted when the process ends, by :func:`delete_spill` on a signal too. What a killed process
left is deleted by the next one.
"""

import atexit
import itertools
import logging
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

SPILL_PREFIX = "moedb-spill-"
"""How the names of the folders begin."""

LOCK_NAME = "lock"
"""The file in such a folder that its process holds locked."""

_TRIES = 10
_logger = logging.getLogger(__name__)


@dataclass
class _Spill:
    """The folder of this process, and the lock that says that it lives."""

    pid: int
    folder: Path
    lock: "FileLock"
    numbers: "itertools.count[int]"


# A process has one, however many stores it opens; a forked one makes its own.
_of_process: list[_Spill] = []


def spill_folder() -> Path | None:
    """Return a new path for one connection to spill to, in a folder that this process owns.

    The first call deletes what processes that are no longer there have left.

    Returns
    -------
    Path or None
        A folder that is not there yet; DuckDB makes it when it needs it. None where the temporary
        folder cannot be written to: queries then have memory alone.
    """
    # every command imports this module, few need it
    from filelock import Timeout

    if not _of_process or _of_process[-1].pid != os.getpid():
        try:
            parent = Path(tempfile.gettempdir())
            sweep_spills(parent)
            made = _make(parent)
        except (OSError, Timeout) as error:
            _logger.info("no folder for spilling: %s", error)
            return None
        # a fork keeps its parent's, lest its lock be given up
        _of_process.append(made)
        atexit.register(delete_spill)
    spill = _of_process[-1]
    return spill.folder / f"{next(spill.numbers)}"


def delete_spill() -> None:
    """Delete the folder of this process, if it has one."""
    if _of_process and _of_process[-1].pid == os.getpid():
        spill = _of_process.pop()
        _delete(spill.folder)
        spill.lock.release()


def delete_spill_on_signals() -> None:
    """Have the signals that ask a program to end delete its folder first.

    A signal that something else handles, or ignores, is left alone.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def sweep_spills(parent: Path) -> None:
    """Delete the folders of processes that are no longer there.

    Only folders of our name and user count, no links to some, and only such whose lock nobody
    holds: a number of a process may be taken anew, or mean another one in a container.
    """
    from filelock import FileLock, Timeout

    with os.scandir(parent) as entries:
        found = [Path(entry.path) for entry in entries if entry.name.startswith(SPILL_PREFIX)]
    for folder in found:
        with suppress(OSError, Timeout):
            if not _is_ours(folder, stat.S_ISDIR):
                continue
            if not _is_ours(folder / LOCK_NAME, stat.S_ISREG):
                folder.rmdir()  # being made, or never filled
                continue
            with FileLock(folder / LOCK_NAME, timeout=0):
                _delete(folder)


def _is_ours(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    user = os.geteuid() if hasattr(os, "geteuid") else status.st_uid
    return kind(status.st_mode) and status.st_uid == user


def _make(parent: Path) -> _Spill:
    from filelock import FileLock, Timeout

    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=SPILL_PREFIX, dir=parent))
        lock = FileLock(folder / LOCK_NAME, timeout=0)
        # another process may sweep the folder before it is locked
        with suppress(OSError, Timeout):
            lock.acquire()
            if lock.is_locked and (folder / LOCK_NAME).exists():
                return _Spill(os.getpid(), folder, lock, itertools.count())
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
    raise OSError(f"no folder for spilling could be made in {parent}")


def _delete(folder: Path) -> None:
    """Delete a folder, the lock last: while anything is left, somebody can find it."""
    for entry in folder.iterdir():
        if entry.name != LOCK_NAME:
            shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _end(number: int, frame: FrameType | None) -> None:
    delete_spill()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
