"""Commits: whole or absent, whatever goes wrong, whoever else is at work."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import zarr

from moedb.errors import StoreError
from moedb.schemas.arrays import SHARD_ROWS
from moedb.schemas.tables import TOKENS
from moedb.store.arrays.metadata import ArrayForm
from moedb.store.arrays.stored import ArrayKey, create_arrays, write_rows
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.writing.removal import remove_run
from moedb.store.writing.run_writer import RunWriter
from moedb.store.writing.tables.parquet import arrow_table
from tests.support.contents import run_contents
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample


def contents(store: Path) -> dict[str, Any]:
    return run_contents(store, RUN_ID)


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    writer = write_sample(tmp_path / "store")
    run = read_run(tmp_path / "store", RUN_ID)
    assert run.is_complete and not run.missing_units
    for unit in range(3):
        tables, arrays = unit_rows(writer.manifest, unit)
        files = [str(path) for path in run.files("routing")]
        stored = duckdb.sql(
            f"from read_parquet({files}) where token_idx // 5 = {unit} "
            "order by layer, token_idx, rank"
        ).df()
        for column, values in tables["routing"].items():
            np.testing.assert_array_equal(stored[column], np.asarray(values, stored[column].dtype))
        for key, values in arrays.items():
            kept = zarr.open_array(run.layout.arrays, path=key.path)[unit * 1024 : unit * 1024 + 5]
            np.testing.assert_array_equal(kept, values)


def test_rows_that_no_unit_wrote_are_nan(tmp_path: Path) -> None:
    write_sample(tmp_path / "store")
    folder = RunLayout(tmp_path / "store", RUN_ID).arrays
    array = zarr.open_array(folder, path="router_logits/1", mode="r")
    assert array.shape == (3 * 1024, 4)
    assert np.isnan(array[5:1024]).all() and not np.isnan(array[1024:1029]).any()


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    key = ArrayKey("expert_outputs", 0)
    create_arrays(tmp_path / "arrays", {key: ArrayForm((SHARD_ROWS, 2, 3), "float32")}, {})
    with pytest.raises(ValueError, match=r"expert_outputs/0: .* shape \(2, 3\), got \(1, 3\)"):
        write_rows(tmp_path / "arrays", 0, {key: np.zeros((5, 1, 3), np.float32)})


def test_a_unit_counts_only_when_its_manifest_exists(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest())
    writer.begin({})
    assert writer.commit_unit(1, *unit_rows(writer.manifest, 1))
    before = read_run(tmp_path / "store", RUN_ID)
    assert before.missing_units == [0, 2] and before.row["status"] == "incomplete"
    writer.layout.segment("000001").unlink()
    assert read_run(tmp_path / "store", RUN_ID).files("routing") == []
    with pytest.raises(StoreError, match="lacks the units"):
        writer.finish()


def test_the_first_of_two_commits_wins(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest())
    tables, arrays = unit_rows(writer.manifest, 0)
    other = {key: values + 1 for key, values in arrays.items()}
    assert writer.commit_unit(0, tables, arrays)
    assert not writer.commit_unit(0, tables, other)
    for key, values in arrays.items():
        kept = zarr.open_array(writer.layout.arrays, path=key.path)[:5]
        np.testing.assert_array_equal(kept, values)


def test_racing_writers_commit_each_unit_once(tmp_path: Path) -> None:
    manifest = sample_manifest(n_units=4)
    outcomes: list[tuple[int, bool]] = []
    barrier = threading.Barrier(4, timeout=30)

    def work() -> None:
        writer = RunWriter(tmp_path / "store", manifest)
        for unit in range(4):
            rows = unit_rows(manifest, unit)
            barrier.wait()
            outcomes.append((unit, writer.commit_unit(unit, *rows)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(unit for unit, won in outcomes if won) == [0, 1, 2, 3]
    write_sample(tmp_path / "store", n_units=4)
    alone = tmp_path / "alone"
    write_sample(alone, n_units=4)
    assert contents(tmp_path / "store") == contents(alone)
    assert len(list((tmp_path / "store").rglob("tables/routing/*.parquet"))) == 4


class FailAt:
    """Raises a full disk at the n-th call of any of the functions that reach the disk."""

    def __init__(self, n: int) -> None:
        self.n, self.calls = n, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.n:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args, **kwargs)

        return wrapped


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], FailAt]]:
    def install(n: int) -> FailAt:
        fault = FailAt(n)
        monkeypatch.setattr(os, "fsync", fault.wrap(lambda descriptor: None))
        monkeypatch.setattr(os, "link", fault.wrap(os.link))
        monkeypatch.setattr(Path, "mkdir", fault.wrap(Path.mkdir))
        monkeypatch.setattr(Path, "replace", fault.wrap(Path.replace))
        monkeypatch.setattr(Path, "rename", fault.wrap(Path.rename))
        monkeypatch.setattr(
            "moedb.store.writing.run_writer.write_parquet",
            fault.wrap(
                __import__("moedb.store.writing.tables.parquet", fromlist=["x"]).write_parquet
            ),
        )
        monkeypatch.setattr(
            "moedb.store.writing.run_writer.write_rows",
            fault.wrap(__import__("moedb.store.arrays.stored", fromlist=["x"]).write_rows),
        )
        return fault

    yield install


@pytest.mark.parametrize("n_vocabulary", [0, 100])
def test_whichever_write_fails_the_run_resumes_to_the_same_rows(
    tmp_path: Path,
    failing: Callable[[int], FailAt],
    monkeypatch: pytest.MonkeyPatch,
    n_vocabulary: int,
) -> None:
    small = {"n_units": 1, "arrays": ("router_logits",), "n_vocabulary": n_vocabulary}
    write_sample(tmp_path / "whole", **small)
    expected = contents(tmp_path / "whole")
    n, failures = 1, 0
    while True:
        store = tmp_path / f"store{n}"
        fault = failing(n)
        try:
            write_sample(store, **small)
            failed = False
        except OSError as error:
            assert error.errno == errno.ENOSPC
            failed = True
        monkeypatch.undo()
        if (store / "moedb.json").exists():
            for run in take_snapshot(store).runs.values():
                assert not run.is_complete or contents(store) == expected
        write_sample(store, **small)
        assert contents(store) == expected, f"after the failure of write {n}"
        failures += failed
        if fault.calls < n:
            break
        n += 1
    assert failures > 30


def test_finishing_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    store = tmp_path / "store"
    writer = RunWriter(store, sample_manifest())
    left = writer.layout.tables / "routing" / "000000-dead.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    (writer.layout.staging / "77-dead").mkdir(parents=True)
    write_sample(store)
    assert not left.exists() and not writer.layout.staging.exists()


def test_finishing_leaves_a_writer_that_is_at_work_alone(tmp_path: Path) -> None:
    writer = write_sample(tmp_path / "store")
    with writer._staging() as folder:
        (folder / "half").write_text("on its way")
        RunWriter(tmp_path / "store", writer.manifest).finish()
        assert (folder / "half").read_text() == "on its way"
    writer.finish()
    assert not writer.layout.staging.exists()


def test_another_folder_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(StoreError, match="neither empty nor a moedb store"):
        RunWriter(tmp_path, sample_manifest())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_removing_a_run_leaves_the_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_sample(store)
    write_sample(store, run_id="text-ffffffffff")
    remove_run(store, RUN_ID)
    assert list(take_snapshot(store).runs) == ["text-ffffffffff"]
    assert not RunLayout(store, RUN_ID).folder.exists()


def test_rows_must_fit_their_table() -> None:
    tables, _ = unit_rows(sample_manifest(), 0)
    good = dict(tables["tokens"])
    with pytest.raises(ValueError, match="expected columns"):
        arrow_table(TOKENS, "r", {k: v for k, v in good.items() if k != "token"})
    with pytest.raises(ValueError, match="null where none is allowed"):
        arrow_table(TOKENS, "r", {**good, "position": [0, 1, 2, 3, None]})
    with pytest.raises(ValueError, match="expected 5 rows, got 4"):
        arrow_table(TOKENS, "r", {**good, "token": ["a"] * 4})
