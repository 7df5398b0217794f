"""What a run holds, as plain values: for saying that two captures are the same."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import zarr

from moedb.schemas.tables import TABLES
from moedb.store.reading.snapshot import read_run

TIMES = ("created_at", "finished_at")


def run_contents(store: Path, run_id: str) -> dict[str, Any]:
    """All committed rows, and the bytes of the arrays; but for the times of writing."""
    run = read_run(store, run_id)
    found: dict[str, Any] = {}
    for table in TABLES:
        if files := [str(path) for path in run.files(table.name)]:
            names = ", ".join(name for name in table.column_names if name not in TIMES)
            found[table.name] = duckdb.read_parquet(files).select(names).order("all").fetchall()
    group = zarr.open_group(run.layout.arrays, mode="r")
    for name, layers in run.manifest.arrays.items():
        for layer in layers:
            found[f"{name}/{layer}"] = np.asarray(group[f"{name}/{layer}"][:]).tobytes()
    return found
