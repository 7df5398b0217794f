"""What is made once for a whole run of the tests, by whichever of its processes comes first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """The folder ``name``, which ``make`` has filled; nobody may write into it afterwards."""
    base = tmp_path_factory.getbasetemp()
    # With pytest-xdist each process has a folder of its own in the one of them all.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed at it
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
