"""Files that were there when a snapshot was taken, and are no longer."""

import os
import re
from pathlib import Path

from moedb.errors import StoreError

_FILE = re.compile(r'"([^"]*/runs/[^"/]+/tables/[^"/]+/[^"/]+\.parquet)')


def explain_missing_file(error: Exception) -> StoreError | None:
    """Say of an error of DuckDB that a file of a run is gone, if that is so.

    A compaction replaces files and deletes them after a while; whoever has had the run open for
    longer has to open it again.
    """
    found = _FILE.search(str(error))
    if found is None:
        return None
    is_elsewhere = "://" in found[1]
    is_gone = "FileNotFound" in str(error) if is_elsewhere else not os.path.lexists(found[1])
    return file_is_gone(found[1]) if is_gone else None


def file_is_gone(path: str | Path) -> StoreError:
    """The error that says that a file of a run is no longer there."""
    return StoreError(
        f"{path} is gone: the run was compacted or deleted since the store was opened",
        "open the store again",
    )
