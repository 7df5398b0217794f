"""The Zarr arrays of a run: making them, writing a unit's rows, opening them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from moedb.errors import StoreDamagedError
from moedb.schemas.arrays import (
    CHUNK_ROWS,
    DIMENSION_NAMES,
    FINAL_NORM,
    IMAGES,
    SHARD_ROWS,
    ArraySpec,
    array_spec,
)
from moedb.schemas.manifests import FileEntry, RunManifest
from moedb.schemas.tables import FORMAT_MAJOR
from moedb.store.arrays.metadata import (
    COMPRESSION,
    COMPRESSION_LEVEL,
    SHUFFLE,
    ArrayForm,
    read_form,
)
from moedb.store.containment import check_inside, check_tree
from moedb.store.files import sha256_of_file, sha256_of_json
from moedb.store.layout import ARRAYS, FIRST_UNIT, METADATA, metadata_paths
from moedb.store.reading.places.remote_store import fetch_metadata
from moedb.store.reading.snapshot import RunSnapshot, check_sum, of_run

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


def array_form(manifest: RunManifest, key: ArrayKey) -> ArrayForm:
    """The form that an array of a run has, by the run's configuration.

    Raises
    ------
    ArrayNotFoundError
        If there is no such kind of array.
    """
    row = next((row for row in manifest.layers if row["layer"] == key.layer), {})
    sizes = {
        "E": row.get("n_experts", 0),
        "k": row.get("top_k", 0),
        "d": manifest.row["d_model"],
        "h": row.get("d_expert", 0),
        "s": row.get("d_shared", 0),
        "p": prod(manifest.image_shape or (0,)),
        "T": manifest.n_rows,
        "V": manifest.model_end.n_vocabulary if manifest.model_end else 0,
    }
    dtype = "float16" if manifest.row["dtype"] == "float16" else "float32"
    spec = array_spec(key.name)
    return ArrayForm((sizes[spec.first], *row_shape(spec, sizes)), dtype)


def array_forms(manifest: RunManifest) -> dict[ArrayKey, ArrayForm]:
    """The arrays that a run has, by its configuration."""
    keys = [ArrayKey(name, layer) for name, kept in manifest.arrays.items() for layer in kept]
    return {key: array_form(manifest, key) for key in keys}


def array_attributes(manifest: RunManifest) -> dict[str, Any]:
    """What arrays say in their attributes, by name: images, and what is of the model's end."""
    end, image = manifest.model_end, manifest.image_shape
    return {
        **({} if end is None else {FINAL_NORM: {"centers": end.centers, "factor": end.factor}}),
        **({} if image is None else {IMAGES: {"shape": list(image)}}),
    }


def row_shape(spec: ArraySpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one row, from the sizes of the axes."""
    return tuple(sizes[axis] for axis in spec.axes)


def create_arrays(
    folder: Path,
    forms: Mapping[ArrayKey, ArrayForm],
    attributes: Mapping[str, Any],
    of_arrays: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Make a Zarr v3 group at ``folder`` with one array for each key, all values NaN.

    Parameters
    ----------
    folder
        Where; anything there is replaced.
    forms
        For each array its form; rows that are tokens are a multiple of ``SHARD_ROWS``.
    attributes
        Attributes of the group.
    of_arrays
        For names of arrays further attributes.
    """
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(attributes))
    for key, form in sorted(forms.items()):
        spec, (n_rows, *widths) = array_spec(key.name), form.shape
        if n_rows % SHARD_ROWS and not spec.is_of_run:
            raise ValueError(f"expected a multiple of {SHARD_ROWS} rows, got {n_rows}")
        group.create_array(
            key.path,
            shape=form.shape,
            dtype=form.dtype,
            chunks=(CHUNK_ROWS, *widths),
            shards=(SHARD_ROWS, *widths),
            compressors=[
                BloscCodec(cname=COMPRESSION, clevel=COMPRESSION_LEVEL, shuffle=SHUFFLE),
                Crc32cCodec(),
            ],
            fill_value=float("nan"),
            dimension_names=[DIMENSION_NAMES[axis] for axis in (spec.first, *spec.axes)],
            attributes={"doc": spec.doc, "layer": key.layer, **of_arrays.get(key.name, {})},
        )


class Rows(Protocol):
    """Rows of an array, handed out piece by piece. A numpy array is one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: slice, /) -> Activations:
        """Some of them, in one block, which may be written over when more are asked for."""


def write_rows(folder: Path, start: int, values: Mapping[ArrayKey, Rows]) -> None:
    """Write rows from ``start`` on into the arrays of the group at ``folder``, shard by shard.

    Raises
    ------
    ValueError
        If the rows are not of the array's shape.
    """
    for key in sorted(values):
        rows, stored = values[key], _open(folder, key, None, "r+", FORMAT_MAJOR)
        for first in range(0, len(rows), SHARD_ROWS):
            block = rows[first : first + SHARD_ROWS]
            if block.shape[1:] != stored.shape[1:]:  # zarr would cut or repeat them
                raise ValueError(
                    f"{key.path}: expected rows of the shape {stored.shape[1:]}, "
                    f"got {block.shape[1:]}"
                )
            stored[start + first : start + first + len(block)] = block


def open_array(run: RunSnapshot, key: ArrayKey) -> "zarr.Array[Any]":
    """Open an array of a run for reading, after checking that it is what the run says it is.

    Raises
    ------
    StoreDamagedError
        If the array's metadata are not those that the run's configuration implies, or not those
        that it was written with, a committed file of it is missing or cut short, or there is a link
        in it.
    """
    try:
        if run.remote is not None:
            fetch_metadata(run.remote, run.run_id, [key.path])
        check_metadata(run, [key])
        check_inside(run.layout.folder, f"{run.layout.arrays.name}/{key.path}/{METADATA}")
        check_tree(run.layout.arrays / key.path)
        run.place.check_whole(entry for _, entry in _shards(run, key))
        form = array_form(run.manifest, key)
        return _open(run.layout.arrays, key, form, "r", run.format, run.place.arrays())
    except StoreDamagedError as error:
        raise of_run(run, error) from error


def check_shards(run: RunSnapshot, key: ArrayKey) -> None:
    """Check that the files of an array hold the bytes that were committed, by reading them.

    Raises
    ------
    StoreDamagedError
        If one doesn't.
    """
    for unit, entry in _shards(run, key):
        check_sum(run, unit, entry)


def _shards(run: RunSnapshot, key: ArrayKey) -> Iterator[tuple[str, FileEntry]]:
    """The committed files of an array, with their units."""
    for unit, segment in sorted(run.segments.items()):
        for entry in segment.shards:
            if entry.path.startswith(f"{run.layout.arrays.name}/{key.path}/"):
                yield unit, entry


def metadata_files(manifest: RunManifest, folder: Path) -> tuple[FileEntry, ...]:
    """The metadata of a run's arrays and of the groups that they are in, of the run at ``folder``.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    if not manifest.arrays:
        return ()
    return tuple(
        FileEntry(path, (folder / path).stat().st_size, sha256_of_file(folder / path))
        for path in metadata_paths(key.path for key in array_forms(manifest))
    )


def hash_of_metadata(metadata: Iterable[FileEntry]) -> str:
    """The hash of arrays' metadata that every unit's manifest carries; empty for none."""
    entries = [(entry.path, entry.sha256) for entry in metadata]
    return sha256_of_json(entries) if entries else ""


def check_metadata(run: RunSnapshot, keys: Iterable[ArrayKey] | None = None) -> None:
    """Check that arrays' metadata are those that the run's units were written with.

    Of an array that lacks them nothing is said here. A store of format 1 does not know.

    Parameters
    ----------
    run
        The run.
    keys
        The arrays; None for all, and the groups that they are in.

    Raises
    ------
    StoreDamagedError
        If one was changed.
    """
    for path in changed_metadata(run, keys):
        raise StoreDamagedError(f"{path} is not what the run was written with")


def changed_metadata(run: RunSnapshot, keys: Iterable[ArrayKey] | None = None) -> Iterator[Path]:
    """The metadata of a run's arrays that were changed, as :func:`check_metadata` looks for them.

    Raises
    ------
    StoreDamagedError
        If there is a link on the way to one.
    """
    known = run.head or run.segments.get(FIRST_UNIT)
    wanted = None if keys is None else {f"{ARRAYS}/{key.path}/{METADATA}" for key in keys}
    for entry in known.metadata if known else ():
        if wanted is not None and entry.path not in wanted:
            continue
        path = run.layout.folder / entry.path
        check_inside(run.layout.folder, entry.path)
        if path.exists() and sha256_of_file(path) != entry.sha256:
            yield path


def missing_arrays(folder: Path, forms: Mapping[ArrayKey, ArrayForm]) -> list[ArrayKey]:
    """Find the arrays that the group at ``folder`` has no readable metadata of.

    Raises
    ------
    StoreDamagedError
        If the metadata of one are there but not those of its form.
    """
    missing = []
    for key, form in sorted(forms.items()):
        try:
            _check_form(folder, key, form, FORMAT_MAJOR)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            missing.append(key)
    return missing


def _check_form(folder: Path, key: ArrayKey, expected: ArrayForm | None, major: int) -> None:
    found = read_form(folder / key.path, major)
    if expected is not None and found != expected:
        raise StoreDamagedError(
            f"{folder / key.path / METADATA}: expected {expected.dtype} of the shape "
            f"{expected.shape}, got {found.dtype} of {found.shape}"
        )


def _open(
    folder: Path,
    key: ArrayKey,
    expected: ArrayForm | None,
    mode: Literal["r", "r+"],
    major: int,
    place: Any = None,
) -> "zarr.Array[Any]":
    """Open an array of the group at ``folder``. Nothing else in moedb opens arrays.

    ``place`` is where its values are, if not in that folder.
    """
    path = folder / key.path / METADATA
    try:
        _check_form(folder, key, expected, major)
        where = folder if place is None else place
        return zarr.open_array(where, path=key.path, mode=mode, zarr_format=3)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamagedError(f"{path} is missing") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreDamagedError(f"{path} is not the metadata of an array: {error}") from error


def shard_files(folder: Path) -> Iterable[Path]:
    """The files of the group at ``folder`` that hold values, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != METADATA)
