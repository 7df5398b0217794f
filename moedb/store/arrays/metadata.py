"""What the metadata of a stored array must say, so that reading it gives numbers and no more.

Metadata name the codecs that turn bytes into values, and some codecs run what they are given. So
they are held against what a run's configuration implies before any byte is decoded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moedb.errors import StoreDamagedError
from moedb.schemas.arrays import CHUNK_ROWS, SHARD_ROWS
from moedb.schemas.tables import FORMAT_MAJOR
from moedb.store.containment import read_text
from moedb.store.layout import METADATA

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 1
SHUFFLE: Final = "shuffle"

_CRC32C: Mapping[str, Any] = {"name": "crc32c", "configuration": {}}


@dataclass(frozen=True)
class ArrayForm:
    """Shape and number format of an array.

    Attributes
    ----------
    shape
        The shape, rows first.
    dtype
        ``float32`` or ``float16``.
    """

    shape: tuple[int, ...]
    dtype: str


def read_form(folder: Path, major: int = FORMAT_MAJOR) -> ArrayForm:
    """Read what the metadata of the array at ``folder`` say, which must be what moedb writes.

    Parameters
    ----------
    folder
        The array's.
    major
        The format of its store.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there are none.
    ValueError
        If they are not JSON.
    StoreDamagedError
        If they are of another format of Zarr, or name types or codecs that moedb does not use.
    """
    path = folder / METADATA
    metadata = json.loads(read_text(path))
    if not isinstance(metadata, dict):
        raise StoreDamagedError(f"{path}: expected an object, got {metadata!r}")
    shape, dtype = metadata.get("shape"), metadata.get("data_type")
    if dtype not in ("float32", "float16"):
        raise StoreDamagedError(f"{path}: data_type: expected float32 or float16, got {dtype!r}")
    if not isinstance(shape, list) or not shape or not all(type(n) is int for n in shape):
        raise StoreDamagedError(f"{path}: shape: expected whole numbers, got {shape!r}")
    for key, expected in _expected(shape[1:], major).items():
        found = metadata.get(key, [] if key == "storage_transformers" else None)
        if key == "codecs":
            found = _without_settings(found)
        if found != expected:
            raise StoreDamagedError(f"{path}: {key}: expected {expected!r}, got {found!r}")
    return ArrayForm(tuple(shape), str(dtype))


def _expected(widths: list[int], major: int) -> Mapping[str, Any]:
    """The metadata that decide how bytes become values."""
    name = COMPRESSION if major >= FORMAT_MAJOR else "lz4"
    compression = {"name": "blosc", "configuration": {"cname": name, "shuffle": SHUFFLE}}
    checksum = [_CRC32C] if major >= FORMAT_MAJOR else []
    return {
        "zarr_format": 3,
        "node_type": "array",
        "fill_value": "NaN",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [SHARD_ROWS, *widths]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "storage_transformers": [],
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [CHUNK_ROWS, *widths],
                    "codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        compression,
                        *checksum,
                    ],
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        _CRC32C,
                    ],
                    "index_location": "end",
                },
            }
        ],
    }


def _without_settings(codecs: Any) -> Any:
    """Leave out what differs between versions of Zarr and does not matter to who decodes."""
    if isinstance(codecs, list):
        return [_without_settings(codec) for codec in codecs]
    if not isinstance(codecs, dict):
        return codecs
    configuration = codecs.get("configuration", {})
    if isinstance(configuration, dict):
        configuration = {
            key: _without_settings(value) if key.endswith("codecs") else value
            for key, value in configuration.items()
            if not (key in ("typesize", "clevel", "blocksize") and type(value) is int)
        }
    return {**codecs, "configuration": configuration}
