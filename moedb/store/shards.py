"""Writing the shards of a run's arrays, in the format of Zarr's sharding codec.

What zarr would write, byte for byte, but chunk by chunk on the way to the disk, and hashed on that
way. Zarr copies every chunk, compares it with the fill value and joins the shard in memory, which
takes twice the processor time.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from moedb.schemas.arrays import CHUNK_ROWS, SHARD_ROWS
from moedb.store.arrays import COMPRESSION, Activations, ArrayKey

ABSENT = np.iinfo(np.uint64).max
"""Stands in a shard's index, as offset and as length, for a chunk that it does not have."""


class Rows(Protocol):
    """Rows of an array, handed out piece by piece. A numpy array is one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: slice, /) -> Activations:
        """Some of them, in one block."""


def write_rows(
    folder: Path, key: ArrayKey, start: int, rows: Rows, shape: tuple[int, ...], dtype: str
) -> Iterator[tuple[Path, str]]:
    """Write rows of an array as whole shards, each durable when it is yielded.

    Parameters
    ----------
    folder
        The Zarr group's folder. Only shards are written, no metadata.
    key
        The array.
    start
        The first row's number, a multiple of ``SHARD_ROWS``.
    rows
        The rows. What a last shard lacks is left out of it.
    shape, dtype
        The shape of one row, and the array's type.

    Yields
    ------
    path, sha256
        Of each shard.
    """
    first_shard, rest = divmod(start, SHARD_ROWS)
    if rest:
        raise ValueError(f"expected a multiple of {SHARD_ROWS}, got row {start}")
    column = ("0",) * len(shape)
    for shard, first in enumerate(range(0, len(rows), SHARD_ROWS), first_shard):
        path = folder.joinpath(*key.path.split("/"), "c", str(shard), *column)
        path.parent.mkdir(parents=True, exist_ok=True)
        end = min(first + SHARD_ROWS, len(rows))
        yield path, _write_shard(path, rows, range(first, end, CHUNK_ROWS), end, shape, dtype)


def _write_shard(
    path: Path, rows: Rows, chunks: range, end: int, shape: tuple[int, ...], dtype: str
) -> str:
    compressor = Blosc(**COMPRESSION, shuffle=Blosc.SHUFFLE)
    digest = hashlib.sha256()
    index = np.full((SHARD_ROWS // CHUNK_ROWS, 2), ABSENT, dtype="<u8")
    with path.open("wb") as stream:

        def put(content: bytes) -> None:
            stream.write(content)
            digest.update(content)

        for place, first in enumerate(chunks):
            block = rows[first : min(first + CHUNK_ROWS, end)]
            content = compressor.encode(_whole_chunk(block, shape, dtype))
            index[place] = stream.tell(), len(content)
            put(content)
        put(index.tobytes())
        put(google_crc32c.value(index.tobytes()).to_bytes(4, "little"))
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _whole_chunk(block: Activations, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A chunk's rows, those that are missing NaN."""
    if block.shape[1:] != shape:
        raise ValueError(f"expected rows of the shape {shape}, got {block.shape[1:]}")
    if len(block) == CHUNK_ROWS:
        return np.ascontiguousarray(block, dtype=dtype)
    chunk = np.full((CHUNK_ROWS, *shape), np.nan, dtype=dtype)
    chunk[: len(block)] = block
    return chunk
