"""The Zarr arrays of a run: making them, opening them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from moedb.schemas.arrays import CHUNK_ROWS, DIMENSION_NAMES, SHARD_ROWS, ArraySpec, array_spec

Activations = NDArray[np.floating[Any]]

COMPRESSION: dict[str, Any] = {"cname": "lz4", "clevel": 5}
"""How Blosc compresses a chunk, its bytes shuffled."""


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
            compressors=BloscCodec(**COMPRESSION, shuffle=BloscShuffle.shuffle),
            fill_value=float("nan"),
            dimension_names=("row", *(DIMENSION_NAMES[axis] for axis in spec.axes)),
            attributes={"doc": spec.doc, "layer": key.layer},
        )


def array(group: zarr.Group, key: ArrayKey) -> zarr.Array[Any]:
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


def row_shape(spec: ArraySpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one row, from the sizes of the axes."""
    return tuple(sizes[axis] for axis in spec.axes)
