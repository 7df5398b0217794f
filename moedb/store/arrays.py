"""The Zarr arrays of a run: making them, writing a unit's rows, opening them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from moedb.schemas.arrays import CHUNK_ROWS, DIMENSION_NAMES, SHARD_ROWS, ArraySpec, array_spec

Activations = NDArray[np.floating[Any]]


@dataclass(frozen=True, order=True)
class ArrayKey:
    """One array of a run: its name and its layer."""

    name: str
    layer: int

    @property
    def path(self) -> str:
        """Its path in the run's Zarr group."""
        return f"{self.name}/{self.layer}"


def create_arrays(
    folder: Path,
    shapes: Mapping[ArrayKey, tuple[int, ...]],
    n_rows: int,
    dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    """Make a Zarr v3 group at ``folder`` with one array for each key, all values NaN.

    Parameters
    ----------
    folder
        Where; anything there is replaced.
    shapes
        For each array its shape without the first axis.
    n_rows
        Rows of every array, a multiple of ``SHARD_ROWS``.
    dtype
        ``float32`` or ``float16``.
    attributes
        Attributes of the group.
    """
    if n_rows % SHARD_ROWS:
        raise ValueError(f"expected a multiple of {SHARD_ROWS} rows, got {n_rows}")
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
    for key, shape in sorted(shapes.items()):
        spec = array_spec(key.name)
        group.create_array(
            key.path,
            shape=(n_rows, *shape),
            dtype=dtype,
            chunks=(CHUNK_ROWS, *shape),
            shards=(SHARD_ROWS, *shape),
            compressors=BloscCodec(cname="lz4", shuffle=BloscShuffle.shuffle),
            fill_value=float("nan"),
            dimension_names=("row", *(DIMENSION_NAMES[axis] for axis in spec.axes)),
            attributes={"doc": spec.doc, "layer": key.layer},
        )


class Rows(Protocol):
    """Rows of an array, handed out piece by piece. A numpy array is one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: slice, /) -> Activations:
        """Some of them, in one block."""


def write_rows(folder: Path, start: int, values: Mapping[ArrayKey, Rows]) -> None:
    """Write rows from ``start`` on into the arrays of the group at ``folder``, shard by shard.

    Raises
    ------
    ValueError
        If the rows are not of the array's shape.
    """
    group = zarr.open_group(folder, mode="r+")
    for key in sorted(values):
        rows, stored = values[key], array(group, key)
        for first in range(0, len(rows), SHARD_ROWS):
            block = rows[first : first + SHARD_ROWS]
            if block.shape[1:] != stored.shape[1:]:  # zarr would cut or repeat them
                raise ValueError(
                    f"{key.path}: expected rows of the shape {stored.shape[1:]}, "
                    f"got {block.shape[1:]}"
                )
            stored[start + first : start + first + len(block)] = block


def array(
    group: zarr.Group, key: ArrayKey
) -> "zarr.Array[Any]":  # no generic at run time before zarr 3.1.3?
    """The array ``key`` of an open group.

    Raises
    ------
    KeyError
        If the group does not hold it.
    """
    found = group[key.path]
    if not isinstance(found, zarr.Array):
        raise KeyError(key.path)
    return found


def shard_files(folder: Path) -> Iterable[Path]:
    """The files of the group at ``folder`` that hold values, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json")


def row_shape(spec: ArraySpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one row, from the sizes of the axes."""
    return tuple(sizes[axis] for axis in spec.axes)
