"""Folders that cannot be written, for root too."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Keep everyone from writing in ``folder``; skip the test where that cannot be done."""
    if os.geteuid():
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    try:
        made = subprocess.run(["chattr", "+i", folder], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("root writes everywhere, and there is no chattr here")
    if made.returncode:
        pytest.skip("root writes everywhere, and this file system has no immutable folders")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)
