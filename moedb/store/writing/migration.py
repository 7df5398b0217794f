"""Writing the runs of a store of an older format anew, unit by unit, in a store of this one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moedb.errors import StoreDamagedError, StoreError, UsageError
from moedb.schemas.manifests import FileEntry, SegmentManifest
from moedb.schemas.tables import (
    FORMAT_MAJOR,
    MOE_LAYERS,
    ROUTER_MASS,
    ROUTING,
    RUNS,
    TOKENS,
    Table,
    table,
)
from moedb.store.arrays.stored import Activations, array_forms, open_array
from moedb.store.layout import FIRST_UNIT, unit_name
from moedb.store.reading.snapshot import RunSnapshot, check_files, check_sum
from moedb.store.writing.run_writer import RunWriter
from moedb.store.writing.tables.parquet import Columns


def check_migration(source: Path, target: Path, major: int) -> None:
    """Check that the runs of one store may be written into another.

    Parameters
    ----------
    source, target
        The stores.
    major
        The format of the first.

    Raises
    ------
    UsageError
        If there is nothing to do, or one store is in the other.
    """
    if major == FORMAT_MAJOR:
        raise UsageError(f"the store {source} has format {major} already: nothing to migrate")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UsageError(
            f"the new store must be a folder of its own, beside {source}: got {target}",
            f"moedb migrate {source} {source}-{FORMAT_MAJOR}",
        )


def migrate_run(run: RunSnapshot, target: Path) -> None:
    """Write what is committed of a run into the store ``target``, which is made if need be.

    The run keeps its name, its configuration and the times of its commits. What is there of it
    already is continued.

    Raises
    ------
    StoreDamagedError
        If a file of the run is not what was committed.
    StoreError
        If the target is no store that can be written, or has another run of this name.
    """
    check_files(run)
    writer = RunWriter(target, run.manifest)
    if writer.manifest != run.manifest:
        raise StoreError(
            f"the store {target} has another run {run.run_id}",
            "name a store that is new, or that a migration of this one was stopped in",
        )
    first = run.segments.get(FIRST_UNIT)
    if first is not None:
        tables = _tables(run, first)
        tables.pop(MOE_LAYERS.name, None)  # made from the run's configuration
        writer.begin(tables, first.committed_at)
    stored = {key: open_array(run, key) for key in array_forms(run.manifest)}
    for unit, span in enumerate(run.manifest.units):
        segment = run.segments.get(unit_name(unit))
        if segment is None or writer.has_unit(unit):
            continue
        for shard in segment.shards:
            check_sum(run, segment.unit, shard)
        start = unit * run.manifest.unit_rows
        arrays = {
            key: _StoredRows(array, start, span.n_rows)
            for key, array in stored.items()
            if any(shard.path.startswith(f"arrays.zarr/{key.path}/") for shard in segment.shards)
        }
        writer.commit_unit(unit, _tables(run, segment), arrays, segment.committed_at)
    if run.is_complete:
        writer.finish(run.row["finished_at"])


class _StoredRows:
    """A unit's rows of an array that is stored, read when they are wanted."""

    def __init__(self, array: Any, start: int, n_rows: int) -> None:
        self._array, self._start, self._n_rows = array, start, n_rows

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, rows: slice, /) -> Activations:
        first, end, _ = rows.indices(self._n_rows)
        return np.asarray(self._array[self._start + first : self._start + end])


def _tables(run: RunSnapshot, segment: SegmentManifest) -> dict[str, Columns]:
    """The rows of a unit, with the columns that this format added."""
    found = {
        name: _read(run, segment.unit, table(name), entry.file)
        for name, entries in segment.tables.items()
        for entry in entries
        if name != RUNS.name
    }
    if ROUTER_MASS.name in found:
        mass = found[ROUTER_MASS.name]
        try:
            mass.update(_rolled_up(mass, found[ROUTING.name], found[TOKENS.name]))
        except (KeyError, IndexError) as error:
            raise StoreDamagedError(
                f"run {run.run_id}, unit {segment.unit}: its decisions are not those of the "
                "experts and examples in router_mass"
            ) from error
    return dict(found)


def _read(run: RunSnapshot, unit: str, of: Table, entry: FileEntry) -> dict[str, Any]:
    check_sum(run, unit, entry)
    rows = pq.read_table(run.layout.folder / entry.path)
    return {
        column.name: _combined(rows.column(column.name))
        for column in of.columns
        if column.name != "run_id" and column.since <= run.format
    }


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _rolled_up(
    mass: Mapping[str, pa.Array], routing: Mapping[str, pa.Array], tokens: Mapping[str, pa.Array]
) -> dict[str, Any]:
    """Count the decisions for each row of ``router_mass``, and add up their weights."""
    token_idx, example_id = (np.asarray(tokens[name]) for name in ("token_idx", "example_id"))
    by_token = np.argsort(token_idx)
    owners = example_id[by_token][
        np.searchsorted(token_idx, np.asarray(routing["token_idx"]), sorter=by_token)
    ]
    keys = _cells(mass["layer"], np.asarray(mass["example_id"]), mass["expert"])
    by_key = np.argsort(keys)
    decided = _cells(routing["layer"], owners, routing["expert"])
    rows = by_key[np.searchsorted(keys, decided, sorter=by_key)]
    if (keys[rows] != decided).any():
        raise KeyError("router_mass")
    weights = np.asarray(routing["weight"]).astype(np.float64)
    return {
        "n_decisions": np.bincount(rows, minlength=len(keys)),
        "weight": np.bincount(rows, weights, minlength=len(keys)),
    }


def _cells(layer: Any, example: Any, expert: Any) -> Any:
    """One number for each layer, example and expert; layers and experts are below 2 ** 15."""
    return (
        (np.asarray(layer).astype(np.int64) << 47)
        | (np.asarray(example).astype(np.int64) << 15)
        | np.asarray(expert)
    )
