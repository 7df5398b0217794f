"""Arrays that are not what their run says they are: no byte of them is decoded."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs.pickles
import numpy as np
import pytest
import zarr

import moedb
from moedb.errors import StoreDamagedError
from moedb.schemas.arrays import SHARD_ROWS
from moedb.store.arrays.metadata import ArrayForm
from moedb.store.arrays.stored import ArrayKey, create_arrays, open_array
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, write_sample

KEY = ArrayKey("router_logits", 1)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sprung,))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store", n_units=1)
    return tmp_path / "store"


@pytest.fixture
def folder(store: Path) -> Path:
    return RunLayout(store, RUN_ID).arrays / KEY.path


def old_format(folder: Path, trap: bytes) -> None:
    """Put an array of Zarr's format 2 there that is unpickled when it is read.

    The files that the run's manifests name stay.
    """
    (folder / "zarr.json").unlink()
    metadata = {
        "zarr_format": 2,
        "shape": [SHARD_ROWS, 4],
        "chunks": [SHARD_ROWS, 4],
        "order": "C",
        "dtype": "|O",
        "fill_value": None,
        "filters": [{"id": "vlen-utf8"}],
        "compressor": {"id": "pickle"},
    }
    (folder / ".zarray").write_text(json.dumps(metadata))
    (folder / "0.0").write_bytes(trap)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: moedb.open(store).array(RUN_ID, "router_logits", layer=1)[:],
        lambda store: verify_run(read_run(store, RUN_ID)),
        lambda store: open_array(read_run(store, RUN_ID), KEY)[:],
    ],
)
def test_nothing_in_a_store_is_unpickled(
    store: Path,
    folder: Path,
    ask: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The installed numcodecs may refuse pickles of itself; moedb must not rest on that.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    sprung = store.parent / "sprung"
    old_format(folder, pickle.dumps(Trap(sprung)))
    with pytest.raises(StoreDamagedError, match=r"zarr\.json is missing"):
        ask(store)
    assert not sprung.exists()
    with pytest.raises(Exception):  # noqa: B017 - the trap is one, for who opens it unasked
        np.asarray(zarr.open_array(folder, mode="r")[:])
    assert sprung.exists()


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "zarr.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def codecs(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    inner: list[dict[str, Any]] = metadata["codecs"][0]["configuration"]["codecs"]
    return inner


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "shape": lambda m: m.update(shape=[SHARD_ROWS, 5]),
    "rows": lambda m: m.update(shape=[2 * SHARD_ROWS, 4]),
    "no shape": lambda m: m.update(shape=None),
    "dtype": lambda m: m.update(data_type="float16"),
    "object dtype": lambda m: m.update(data_type="variable_length_utf8"),
    "fill value": lambda m: m.update(fill_value=0.0),
    "shards": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[SHARD_ROWS, 2]),
    "chunks": lambda m: m["codecs"][0]["configuration"].update(chunk_shape=[32, 4]),
    "codec": lambda m: codecs(m).append({"name": "gzip", "configuration": {"level": 5}}),
    "unknown codec": lambda m: codecs(m).append({"name": "numcodecs.pickle"}),
    "byte order": lambda m: codecs(m)[0]["configuration"].update(endian="big"),
    "compression": lambda m: codecs(m)[1]["configuration"].update(typesize="4"),
    "group": lambda m: m.update(node_type="group"),
    "format": lambda m: m.update(zarr_format=2),
    "transformers": lambda m: m.update(storage_transformers=[{"name": "x"}]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_metadata_are_those_that_the_run_implies(store: Path, folder: Path, name: str) -> None:
    opened = moedb.open(store).array(RUN_ID, "router_logits", layer=1)
    assert opened.shape == (SHARD_ROWS, 4) and opened.metadata.zarr_format == 3
    changed(folder, CHANGES[name])
    with pytest.raises(StoreDamagedError, match=r"router_logits/1/zarr\.json") as caught:
        moedb.open(store).array(RUN_ID, "router_logits", layer=1)
    assert f"moedb rm {RUN_ID}" in str(caught.value)
    with pytest.raises(StoreDamagedError):
        verify_run(read_run(store, RUN_ID))
    with pytest.raises(StoreDamagedError):
        write_sample(store, n_units=1)  # says that it is complete: not before it has looked


@pytest.mark.parametrize("text", ["", "[]", '"x"', "{", "[" * 100_000])
def test_metadata_that_are_none_are_named(store: Path, folder: Path, text: str) -> None:
    (folder / "zarr.json").write_text(text)
    with pytest.raises(StoreDamagedError, match=r"zarr\.json"):
        moedb.open(store).array(RUN_ID, "router_logits", layer=1)


def test_settings_that_do_not_matter_to_a_reader_may_differ(tmp_path: Path) -> None:
    """In format 1, which has no hash of them."""
    store = unpack("format-1", tmp_path)
    folder = RunLayout(store, RUN_ID).arrays / KEY.path
    before = moedb.open(store).array(RUN_ID, "router_logits", layer=1)[:5]
    changed(folder, lambda m: codecs(m)[1]["configuration"].update(clevel=9))
    changed(folder, lambda m: m.update(attributes={"doc": "more"}))
    after = moedb.open(store).array(RUN_ID, "router_logits", layer=1)[:5]
    np.testing.assert_array_equal(before, after)


def test_a_hole_is_not_read_as_values(store: Path, folder: Path) -> None:
    shard = next(path for path in (folder / "c").rglob("*") if path.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(StoreDamagedError, match="bytes, committed were"):
        moedb.open(store).array(RUN_ID, "router_logits", layer=1)
    shard.unlink()
    with pytest.raises(StoreDamagedError, match="is missing"):
        moedb.open(store).array(RUN_ID, "router_logits", layer=1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("widths", [(4,), (2, 3)])
def test_what_is_made_is_what_is_expected(
    tmp_path: Path, dtype: str, widths: tuple[int, ...]
) -> None:
    from moedb.store.arrays.metadata import read_form

    form = ArrayForm((2 * SHARD_ROWS, *widths), dtype)
    key = ArrayKey("router_logits" if len(widths) == 1 else "expert_outputs", 0)
    create_arrays(tmp_path / "arrays", {key: form}, {})
    assert read_form(tmp_path / "arrays" / key.path) == form
    assert zarr.open_array(tmp_path / "arrays", path=key.path).dtype == dtype
