"""A capture that is stopped, in whatever way, ends with the rows of one that was not."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan
from moedb.capture.pipeline.running import capture
from moedb.errors import CaptureError, CheckError, StoreDamagedError, StoreError
from moedb.schemas.tables import TABLE_NAMES
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from tests.support.contents import run_contents
from tests.support.stopping import stopping_at
from tests.support.unwritable import unwritable

pytestmark = pytest.mark.model

N = 200


@pytest.fixture(scope="module")
def planned(random_model: Path) -> CapturePlan:
    options = CaptureOptions(model=str(random_model), batch_size=8)
    return plan_qwen_ioi(options, n=N, seed=0)


@pytest.fixture(scope="module")
def whole(planned: CapturePlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    assert len(planned.units) > 2
    assert capture(planned, store).units_now == len(planned.units)
    return store


def start(random_model: Path, store: Path, first: str = "", *more: str) -> "subprocess.Popen[str]":
    """Capture in a process of its own, which runs the code ``first`` before."""
    code = f"{first}\nfrom moedb.cli import main; main()"
    command = [sys.executable, "-c", code, "--store", str(store)]
    arguments = ["capture", "qwen-ioi", "--model", str(random_model), "--n", str(N)]
    return subprocess.Popen(
        [*command, *arguments, "--batch-size", "8", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_started_again_it_ends_with_the_same_rows(
    how: signal.Signals, planned: CapturePlan, whole: Path, random_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    # A little later the writer is at work on a unit, the model on the next.
    begun = store / "runs" / planned.run_id / "segments" / "first.json"
    process = start(random_model, store, stopping_at(begun, how, after=0.05))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL)
    if how is signal.SIGINT:
        assert "the same command resumes" in errors
    before = take_snapshot(store).runs[planned.run_id]
    assert not before.is_complete
    process = start(random_model, store)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.strip() == planned.run_id
    assert run_contents(store, planned.run_id) == run_contents(whole, planned.run_id)


def test_two_captures_of_one_run_at_once_end_with_the_same_rows(
    planned: CapturePlan, whole: Path, random_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    processes = [start(random_model, store) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert out.strip() == planned.run_id
    assert run_contents(store, planned.run_id) == run_contents(whole, planned.run_id)
    run = read_run(store, planned.run_id)
    assert run.is_complete and not run.layout.staging.exists()
    on_disk = set(run.layout.tables.rglob("*.parquet"))
    assert on_disk == {path for table in TABLE_NAMES for path in run.files(table)}


KEPT = ("--arrays", "unembedding,router_logits")


@pytest.mark.parametrize("how", ["killed", "two at once"])
def test_the_unembedding_is_there_once_whoever_was_stopped(
    how: str, random_model: Path, tmp_path: Path
) -> None:
    options = CaptureOptions(
        model=str(random_model), batch_size=8, arrays=("unembedding", "router_logits")
    )
    planned = plan_qwen_ioi(options, n=N, seed=0)
    capture(planned, tmp_path / "whole")
    store = tmp_path / "store"
    if how == "killed":
        # the arrays are made before the rows of the run as a whole are committed
        begun = store / "runs" / planned.run_id / "arrays.zarr" / "zarr.json"
        process = start(random_model, store, stopping_at(begun, signal.SIGKILL), *KEPT)
        assert process.wait(timeout=300) == -signal.SIGKILL
        assert read_run(store, planned.run_id).missing_units
        processes = [start(random_model, store, "", *KEPT)]
    else:
        processes = [start(random_model, store, "", *KEPT) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert out.strip() == planned.run_id
    assert run_contents(store, planned.run_id) == run_contents(tmp_path / "whole", planned.run_id)
    assert "unembedding/3" in run_contents(store, planned.run_id)
    verify_run(read_run(store, planned.run_id))


def test_a_finished_run_is_not_run_again(planned: CapturePlan, whole: Path) -> None:
    folder = read_run(whole, planned.run_id).layout.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    outcome = capture(planned, whole)
    assert outcome.was_complete and outcome.units_before == len(planned.units)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_configuration_is_another_run(planned: CapturePlan, random_model: Path) -> None:
    def run_id(n: int = N, seed: int = 0, **settings: object) -> str:
        options = CaptureOptions(**{"model": str(random_model), "batch_size": 8, **settings})
        return plan_qwen_ioi(options, n=n, seed=seed).run_id

    assert run_id() == planned.run_id
    others = [
        run_id(n=N + 1),
        run_id(seed=1),
        run_id(layers="2"),
        run_id(arrays=("none",)),
        run_id(tokens="last"),
        run_id(batch_size=4),
        run_id(dtype="bfloat16"),
    ]
    assert len({planned.run_id, *others}) == 1 + len(others)


def test_a_full_disk_stops_the_capture_and_loses_nothing(
    planned: CapturePlan, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from moedb.store.writing import run_writer as writing

    store = tmp_path / "store"
    real, calls = writing.write_rows, []

    def write_rows(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "write_rows", write_rows)
    with pytest.raises(CaptureError, match="no room to write") as caught:
        capture(planned, store)
    assert "run the same command again" in str(caught.value)
    monkeypatch.undo()
    run = read_run(store, planned.run_id)
    assert not run.is_complete and 0 not in run.missing_units
    assert capture(planned, store).units_before >= 1
    assert run_contents(store, planned.run_id) == run_contents(whole, planned.run_id)


def test_no_room_is_said_before_anything_runs(
    planned: CapturePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.capture.pipeline import missing_units

    monkeypatch.setattr(missing_units, "free_bytes", lambda store: 1000)
    with pytest.raises(CaptureError, match=r"takes up to .* GB, the disk .* has 0.00 GB free"):
        capture(planned, tmp_path / "store")
    assert not (tmp_path / "store" / "runs").exists()


def test_what_is_committed_is_not_counted_again(
    planned: CapturePlan, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.capture.pipeline import missing_units

    store, units = tmp_path / "store", planned.units
    shutil.copytree(whole, store)
    layout = RunLayout(store, planned.run_id)
    last = len(units) - 1
    shutil.rmtree(layout.heads)
    for unit in ("final", f"{last:06d}"):
        layout.segment(unit).unlink()
    # By hand: each table's bytes go with the tokens, each array's with the rows.
    tokens, rows = sum(unit.n_tokens for unit in units), sum(unit.n_rows for unit in units)
    tables = sum(planned.estimate.table_bytes.values()) * units[last].n_tokens / tokens
    needed = tables + sum(planned.estimate.array_bytes.values()) * units[last].n_rows / rows
    assert needed < planned.estimate.n_bytes / 2
    monkeypatch.setattr(missing_units, "free_bytes", lambda store: int(needed) - 1)
    with pytest.raises(CaptureError, match="takes up to"):
        capture(planned, store)
    monkeypatch.setattr(missing_units, "free_bytes", lambda store: int(needed) + 2)
    assert capture(planned, store).units_now == 1
    assert run_contents(store, planned.run_id) == run_contents(whole, planned.run_id)
    assert planned.estimate.bytes_of(units) == planned.estimate.n_bytes
    assert planned.estimate.bytes_of([]) == 0


def test_a_store_that_cannot_be_written_is_told_of_before_the_model_is_loaded(
    planned: CapturePlan, whole: Path, tmp_path: Path
) -> None:
    def load(arrays: object) -> NoReturn:
        raise AssertionError("the model was loaded")

    unloaded = dataclasses.replace(planned, open_model=load)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is no folder"):
        capture(unloaded, tmp_path / "file" / "store")
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    layout = RunLayout(store, planned.run_id)
    with unwritable(layout.folder):
        assert capture(unloaded, store).was_complete  # for which nothing is written
    shutil.rmtree(layout.heads)
    with unwritable(layout.folder), pytest.raises(StoreError, match="cannot write the store"):
        capture(unloaded, store)
    shutil.rmtree(layout.tables / "routing")
    (layout.tables / "routing").symlink_to(tmp_path)
    with pytest.raises(StoreDamagedError, match="symbolic link"):
        capture(unloaded, store)


def test_a_capture_whose_run_is_deleted_meanwhile_fails(
    planned: CapturePlan, whole: Path, random_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = f"""
import threading, time
from pathlib import Path
from typing import NoReturn
from moedb.store.writing.removal import remove_run

def delete():
    while not Path({str(store / "runs" / planned.run_id / "segments" / "000000.json")!r}).exists():
        time.sleep(0.001)
    remove_run(Path({str(store)!r}), {planned.run_id!r})

threading.Thread(target=delete).start()
"""
    out, errors = (process := start(random_model, store, first)).communicate(timeout=300)
    assert process.returncode == 3 and out == ""
    assert "was deleted while it was being written" in errors and "is complete" not in errors
    assert not take_snapshot(store).runs and list((store / "runs").iterdir()) == []
    out, errors = (process := start(random_model, store)).communicate(timeout=300)
    assert process.returncode == 0, errors
    assert run_contents(store, planned.run_id) == run_contents(whole, planned.run_id)


def test_a_model_that_contradicts_itself_stops_the_capture(
    planned: CapturePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.capture.structure import taps as tap

    real = tap.tapped_experts_forward

    def wrong(self, hidden_states, top_k_index, top_k_weights):  # type: ignore[no-untyped-def]
        # the probe and its rehearsal are small, and would refuse the model before anything runs
        factor = 1.01 if len(hidden_states) > 64 else 1.0
        return factor * real(self, hidden_states, top_k_index, top_k_weights)

    monkeypatch.setitem(tap.moe.ALL_EXPERTS_FUNCTIONS._global_mapping, tap.IMPLEMENTATION, wrong)
    with pytest.raises(
        CheckError, match=r"layer 1: .* miss the output .* by .*; rounding explains"
    ):
        capture(planned, tmp_path / "store")
    assert read_run(tmp_path / "store", planned.run_id).n_rows("routing") == 0
