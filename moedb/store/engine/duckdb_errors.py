"""What errors of DuckDB mean here: a file that is gone or out of reach, an error of our own."""

import os
import re
from pathlib import Path

from moedb import errors
from moedb.errors import FaultsError, MoedbError, StoreDamagedError, StoreError
from moedb.store.reading.places.file_systems import cannot_reach, raised_by_file_system

_FILE = re.compile(r'"([^"]*/runs/[^"/]+/tables/[^"/]+/[^"/]+\.parquet)')

_IN_FUNCTION = re.compile(r"executing the UDF: (\w+): (.*)", re.DOTALL)


def explain_error(error: Exception) -> MoedbError | None:
    """Return the error of ours that an error of DuckDB comes from, if it comes from one."""
    return _raised_in_function(str(error)) or explain_missing_file(error)


def _raised_in_function(text: str) -> MoedbError | None:
    """The error that a function of ours has raised, of which DuckDB passes on the text alone."""
    found = _IN_FUNCTION.search(text)
    kind = getattr(errors, found[1], None) if found else None
    if found is None or not (isinstance(kind, type) and issubclass(kind, MoedbError)):
        return None
    message, _, hint = found[2].partition("\n  ")
    # all but that one are made of a message and a hint
    return (StoreDamagedError if kind is FaultsError else kind)(message, hint or None)


def explain_missing_file(error: Exception) -> StoreError | None:
    """Say of an error of DuckDB that a file of a run is gone, or out of reach, if that is so.

    A compaction replaces files and deletes them after a while; whoever has had the run open for
    longer has to open it again.
    """
    text = str(error)
    found = _FILE.search(text)
    if found is not None:
        is_elsewhere = "://" in found[1]
        says_so = "FileNotFound" in text or "No files found" in text
        if says_so if is_elsewhere else not os.path.lexists(found[1]):
            return file_is_gone(found[1])
    raised = raised_by_file_system(text)
    if raised is None:
        return None
    if "FileNotFoundError" in raised:
        return file_is_gone(found[1] if found else "a file of a run")
    return cannot_reach(found[1] if found else "the store", raised)


def file_is_gone(path: str | Path) -> StoreError:
    """The error that says that a file of a run is no longer there."""
    return StoreError(
        f"{path} is gone: the run was compacted or deleted since the store was opened",
        "open the store again",
    )
