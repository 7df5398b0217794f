"""Stores of each format as it was released, and a hash of everything that they hold."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import zarr

from moedb.store.reading.snapshot import RunSnapshot, take_snapshot

FOLDER = Path(__file__).parent.parent.parent / "store" / "golden"

Contents = dict[str, dict[str, Any]]


def unpack(name: str, folder: Path) -> Path:
    """Unpack a golden store, such as ``format-1``, into a new folder ``store`` of ``folder``."""
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        archive.extractall(folder / "store")
    return folder / "store"


def pack(store: Path, name: str) -> None:
    """Make a golden store, and the hashes of what it holds. Not called by any test."""
    with zipfile.ZipFile(FOLDER / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(store)), (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    text = json.dumps(contents(store), indent=1, sort_keys=True)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def expected(name: str) -> Contents:
    """The hashes of what a golden store held when it was made."""
    found: Contents = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def contents(store: Path, like: Contents | None = None) -> Contents:
    """Hash what a store holds; of ``like`` the columns that it has, where it is given."""
    return {
        run_id: _contents(run, (like or {}).get(run_id))
        for run_id, run in take_snapshot(store).runs.items()
    }


def _contents(run: RunSnapshot, like: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for folder in sorted(run.layout.tables.iterdir()):
        files = [str(path) for path in run.files(folder.name)]
        columns = like[folder.name]["columns"] if like else duckdb.read_parquet(files).columns
        rows = duckdb.read_parquet(files).select(", ".join(columns)).order("all").fetchall()
        found[folder.name] = {"columns": columns, "n_rows": len(rows), "sha256": _hash(rows)}
    if run.manifest.arrays:
        group = zarr.open_group(run.layout.arrays, mode="r")
        for name, layers in run.manifest.arrays.items():
            for layer in layers:
                values = np.asarray(group[f"{name}/{layer}"][:])
                digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
                found[f"{name}/{layer}"] = {"shape": [*values.shape], "sha256": digest}
    return found


def _hash(rows: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps([*rows]).encode()).hexdigest()
