"""Deleting a run: stopped at any moment, and beside those who write it."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moedb.errors import RunNotFoundError, StoreError
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing import removal
from moedb.store.writing.removal import remove_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.contents import run_contents
from tests.support.stopping import killed_at_each_call
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

SMALL: dict[str, Any] = {"n_units": 2, "arrays": ("router_logits",)}
OTHER = "text-ffffffffff"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


_KILLED = killed_at_each_call(
    "from moedb.store.writing.removal import remove_run",
    "remove_run(store, run)",
    ("fsync", "rename", "unlink", "rmdir", "open"),
)


def test_killed_at_any_moment_a_run_is_whole_or_gone(tmp_path: Path) -> None:
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    write_sample(whole, **SMALL)
    write_sample(whole, run_id=OTHER, **SMALL)
    expected = run_contents(whole, RUN_ID)
    copies.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(whole), str(copies), RUN_ID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n_moments = int(done.stdout)
    assert n_moments > 30
    states = set()
    for n in range(1, n_moments + 1):
        store = copies / str(n)
        snapshot = take_snapshot(store)
        assert not snapshot.damaged and OTHER in snapshot.runs
        states.add(RUN_ID in snapshot.runs)
        if RUN_ID in snapshot.runs:
            verify_run(snapshot.runs[RUN_ID])
        elif n % 2:
            assert not RunLayout(store, RUN_ID).folder.exists()
            write_sample(store, **SMALL)  # finishing sweeps
            assert run_contents(store, RUN_ID) == expected
            assert names_in(store / "runs") == [RUN_ID, OTHER]
        else:
            remove_run(store, OTHER)  # and so does deleting another
            assert names_in(store / "runs") == []
        shutil.rmtree(store)
    assert states == {True, False}


class ActAt:
    """Does something at the n-th call of any of the functions that reach the disk."""

    def __init__(self, n: int, act: Callable[[], object]) -> None:
        self.n, self.act, self.calls = n, act, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                self.calls += 1
                if self.calls == self.n:
                    self.act()
            return function(*given, **named)

        return wrapped

    def install(self, patch: pytest.MonkeyPatch) -> None:
        # without the disk's part in it, which is not what this is about
        patch.setattr(os, "fsync", self.wrap(lambda descriptor: None))
        for owner, name in (
            (os, "link"),
            (os, "unlink"),
            (Path, "mkdir"),
            (Path, "replace"),
            (Path, "rename"),
            (Path, "unlink"),
        ):
            patch.setattr(owner, name, self.wrap(getattr(owner, name)))
        for name in ("write_parquet", "write_rows", "create_arrays"):
            module = sys.modules["moedb.store.writing.run_writer"]
            patch.setattr(module, name, self.wrap(getattr(module, name)))


def test_a_writer_beside_a_deletion_fails_or_has_written_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**SMALL, "n_units": 1}
    write_sample(tmp_path / "whole", **small)
    expected = run_contents(tmp_path / "whole", RUN_ID)
    n, outcomes = 1, []
    while True:
        store = tmp_path / f"store{n}"
        deleted: list[bool] = []

        def delete(store: Path = store, deleted: list[bool] = deleted) -> None:
            try:
                remove_run(store, RUN_ID)
                deleted.append(True)
            except (RunNotFoundError, StoreError):
                deleted.append(False)

        # in a thread of its own: it may have to wait for the lock, which the writer holds
        beside = threading.Thread(target=delete)

        def act(beside: threading.Thread = beside) -> None:
            beside.start()
            beside.join(timeout=0.1)

        action = ActAt(n, act)
        with monkeypatch.context() as patch:
            action.install(patch)
            try:
                write_sample(store, **small)
                outcomes.append("done")
            except StoreError as error:
                assert "was deleted while it was being written" in str(error)
                assert error.exit_code == 3
                outcomes.append("failed")
        if action.calls < n:
            break
        beside.join()
        snapshot = take_snapshot(store)
        assert not snapshot.damaged
        if RUN_ID in snapshot.runs:
            # deleted before it was, or not at all, and then made whole
            assert outcomes[-1] == "done"
            assert run_contents(store, RUN_ID) == expected
        else:
            assert deleted == [True]
        if n % 10 == 0:
            write_sample(store, **small)
            assert run_contents(store, RUN_ID) == expected
            assert names_in(store / "runs") == [RUN_ID]
        shutil.rmtree(store)
        n += 1
    assert outcomes.count("failed") > 30


def test_a_deleted_run_is_not_continued_even_if_it_is_begun_anew(tmp_path: Path) -> None:
    store = tmp_path / "store"
    writer = RunWriter(store, sample_manifest(**SMALL))
    writer.begin({})
    assert writer.commit_unit(0, *unit_rows(writer.manifest, 0))
    remove_run(store, RUN_ID)
    for act in (
        lambda: writer.commit_unit(1, *unit_rows(writer.manifest, 1)),
        writer.snapshot,
        writer.finish,
    ):
        with pytest.raises(StoreError, match="was deleted while it was being written"):
            act()
        assert names_in(store / "runs") == []

    manifest = sample_manifest(**SMALL)
    manifest.row["created_at"] = "2026-01-02T00:00:00+00:00"
    RunWriter(store, manifest).begin({})
    with pytest.raises(StoreError, match="was deleted while it was being written"):
        writer.commit_unit(1, *unit_rows(writer.manifest, 1))
    assert take_snapshot(store).runs[RUN_ID].missing_units == [0, 1]


def test_a_deletion_waits_for_a_commit_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write_sample(tmp_path / "store", **SMALL)
    monkeypatch.setattr(removal, "LOCK_SECONDS", 0.1)
    with writer._locked(), pytest.raises(StoreError, match="is being written"):
        remove_run(tmp_path / "store", RUN_ID)
    assert take_snapshot(tmp_path / "store").runs[RUN_ID].is_complete


def test_a_damaged_run_and_half_a_run_can_be_deleted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_sample(store, **SMALL)
    RunLayout(store, RUN_ID).manifest.unlink()
    assert list(take_snapshot(store).damaged) == [RUN_ID]
    remove_run(store, RUN_ID)
    RunLayout(store, RUN_ID).segments.mkdir(parents=True)
    assert not take_snapshot(store).damaged
    remove_run(store, RUN_ID)
    assert names_in(store / "runs") == []


def test_arrays_that_were_made_half_are_completed(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest())
    expected = run_contents_of_arrays(writer)
    for damage in (
        lambda folder: shutil.rmtree(folder / "router_logits"),
        lambda folder: shutil.rmtree(folder / "expert_outputs" / "3"),
        lambda folder: (folder / "expert_outputs" / "1" / "zarr.json").unlink(),
        lambda folder: (folder / "expert_outputs" / "1" / "zarr.json").write_text(""),
        lambda folder: shutil.rmtree(folder),
    ):
        damage(writer.layout.arrays)
        assert run_contents_of_arrays(RunWriter(tmp_path / "store", sample_manifest())) == expected
    write_sample(tmp_path / "store")
    write_sample(tmp_path / "alone")
    assert run_contents(tmp_path / "store", RUN_ID) == run_contents(tmp_path / "alone", RUN_ID)


def run_contents_of_arrays(writer: RunWriter) -> dict[str, str]:
    return {
        str(path.relative_to(writer.layout.arrays)): path.read_text()
        for path in sorted(writer.layout.arrays.rglob("zarr.json"))
    }


def test_a_run_whose_arrays_are_gone_is_not_called_complete(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest(**SMALL))
    writer.begin({})
    for unit in (0, 1):
        writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    shutil.rmtree(writer.layout.arrays)
    with pytest.raises(StoreError, match="is missing"):
        write_sample(tmp_path / "store", **SMALL)
    assert not take_snapshot(tmp_path / "store").runs[RUN_ID].is_complete


def test_a_run_that_is_deleted_while_its_files_are_checked_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for a file and the look at its size."""
    from moedb.store.reading import committed_files

    writer = write_sample(tmp_path, **SMALL)
    inside = committed_files.check_inside

    def delete_behind(folder: Path, path: str) -> bool:
        found = inside(folder, path)
        if "/c/" in path and (tmp_path / "runs" / RUN_ID).exists():
            remove_run(tmp_path, RUN_ID)
        return found

    monkeypatch.setattr(committed_files, "check_inside", delete_behind)
    with pytest.raises(StoreError, match="was deleted while it was being written"):
        writer.finish()
