"""Shards: the bytes that zarr itself would write."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr

from moedb.store.arrays import ArrayKey, create_arrays
from moedb.store.shards import write_rows

KEY, NARROW = ArrayKey("expert_outputs", 3), ArrayKey("router_input", 3)


def values(n_rows: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(n_rows)
    return rng.standard_normal((n_rows, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(6,), (4, 12)])
@pytest.mark.parametrize("n_rows", [1, 64, 65, 1000, 1024, 1025, 2048])
def test_shards_are_those_of_zarr(
    tmp_path: Path, n_rows: int, shape: tuple[int, ...], dtype: str
) -> None:
    key = KEY if len(shape) == 2 else NARROW
    for name in ("zarr", "ours"):
        create_arrays(tmp_path / name, {key: shape}, 4 * 1024, dtype, {})
    rows = values(n_rows, shape, dtype)
    array = zarr.open_array(tmp_path / "zarr", path=key.path)
    array[1024 : 1024 + n_rows] = rows
    written = dict(write_rows(tmp_path / "ours", key, 1024, rows, shape, dtype))
    expected = {p for p in (tmp_path / "zarr").rglob("*") if p.is_file() and "c" in p.parts}
    assert {p.relative_to(tmp_path / "ours") for p in written} == {
        p.relative_to(tmp_path / "zarr") for p in expected
    }
    for path, sha256 in written.items():
        content = path.read_bytes()
        assert content == (tmp_path / "zarr" / path.relative_to(tmp_path / "ours")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
    kept = zarr.open_array(tmp_path / "ours", path=key.path, mode="r")
    np.testing.assert_array_equal(kept[1024 : 1024 + n_rows], rows)
    assert np.isnan(kept[:1024]).all() and np.isnan(kept[1024 + n_rows :]).all()


def test_other_number_formats_become_that_of_the_array(tmp_path: Path) -> None:
    create_arrays(tmp_path, {NARROW: (6,)}, 1024, "float32", {})
    rows = values(70, (6,), "float64")
    assert len(list(write_rows(tmp_path, NARROW, 0, rows, (6,), "float32"))) == 1
    kept = zarr.open_array(tmp_path, path=NARROW.path, mode="r")
    np.testing.assert_array_equal(kept[:70], rows.astype("float32"))


def test_no_rows_are_no_shard(tmp_path: Path) -> None:
    assert not list(write_rows(tmp_path, NARROW, 0, values(0, (6,), "float32"), (6,), "float32"))
    assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    rows = values(10, (6,), "float32")
    with pytest.raises(ValueError, match=r"expected rows of the shape \(4, 6\), got \(6,\)"):
        list(write_rows(tmp_path, KEY, 0, rows, (4, 6), "float32"))
    with pytest.raises(ValueError, match="expected a multiple of 1024, got row 100"):
        list(write_rows(tmp_path, NARROW, 100, rows, (6,), "float32"))
