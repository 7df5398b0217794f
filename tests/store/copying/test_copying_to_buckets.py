"""Copying to and from object storage: order, two writers, kills, and servers that fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import moedb
from moedb.errors import StoreDamagedError, StoreError, UsageError
from moedb.schemas.additions import Addition
from moedb.store.layout import RunLayout
from moedb.store.reading.places.remote_store import RemoteStore
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete.additions import add
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.store.copying.places import counting_files, files_of
from tests.store.copying.test_copying_locally import garble, labels
from tests.support.servers.s3_buckets import Bucket
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, sample_manifest, unfinish, unit_rows, write_sample

AT_ONCE = timedelta(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_sample(tmp_path / "source")
    return tmp_path / "source"


def test_there_and_back_byte_for_byte(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    (done,) = moedb.copy(source, bucket.url)
    assert done.state == "copied" and done.n_bytes == read_run(source, RUN_ID).n_bytes()
    assert bucket.contents() == files_of(source)
    assert moedb.copy(source, bucket.url)[0].state == "same"
    other = f"s3://{bucket.name}/other"
    moedb.copy(bucket.url, other)
    assert bucket.contents(other) == files_of(source)
    moedb.copy(other, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)
    verify_run(read_run(tmp_path / "back", RUN_ID))
    with pytest.raises(UsageError, match="both stores are the same"):
        moedb.copy(bucket.url, f"{bucket.url}/")


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_every_format_goes_there_and_back(name: str, tmp_path: Path, bucket: Bucket) -> None:
    store = unpack(name, tmp_path)
    moedb.copy(store, bucket.url)
    moedb.copy(bucket.url, tmp_path / "back")
    for run_id in take_snapshot(store).runs:
        assert counting_files(tmp_path / "back", run_id) == counting_files(store, run_id)


def test_the_configuration_comes_last(source: Path, bucket: Bucket) -> None:
    with bucket.server.counted() as requests:
        moedb.copy(source, bucket.url)
    puts = [each.split()[1].partition("?")[0] for each in requests if each.startswith("PUT")]
    names = [each.removeprefix(f"/{bucket.name}/some/store/") for each in puts]
    assert names[0] == "moedb.json" and names[-1] == f"runs/{RUN_ID}/run.json"
    parts = [name.removeprefix(f"runs/{RUN_ID}/").partition("/")[0] for name in names[1:-1]]
    assert parts.index("heads") == len(parts) - 1
    data = max(i for i, part in enumerate(parts) if part == "tables")
    assert data < min(i for i, part in enumerate(parts) if part == "segments")


def test_what_was_added_or_compacted_since_is_brought(
    source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    moedb.copy(source, bucket.url)
    for change in (
        lambda: add(source, RUN_ID, Addition("one", "concepts", "{}"), labels("x")),
        lambda: compact_run(source, RUN_ID, AT_ONCE),
        lambda: add(source, RUN_ID, Addition("two", "concepts", "{}"), labels("y")),
    ):
        change()
        with bucket.server.counted() as requests:
            (done,) = moedb.copy(source, bucket.url)
        assert done.state == "copied"
        # what was there is neither brought nor read again
        assert not [each for each in requests if "arrays.zarr" in each and "/c/" in each]
        for n in range(2):
            store = tmp_path / f"{done.n_files}-{n}-{time.monotonic_ns()}"
            moedb.copy(bucket.url, store)
            assert counting_files(store, RUN_ID) == counting_files(source, RUN_ID)
            verify_run(read_run(store, RUN_ID))


def test_runs_that_were_changed_apart_are_refused(
    source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    moedb.copy(source, bucket.url)
    moedb.copy(source, tmp_path / "other")
    add(source, RUN_ID, Addition("one", "concepts", "{}"), labels("x"))
    add(tmp_path / "other", RUN_ID, Addition("two", "concepts", "{}"), labels("y"))
    moedb.copy(source, bucket.url)
    before = bucket.contents()
    with pytest.raises(StoreError, match="each apart"):
        moedb.copy(tmp_path / "other", bucket.url)
    assert bucket.contents() == before


def test_an_incomplete_run_is_read_as_it_grows(
    source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    deleted = unfinish(source, RUN_ID, "000001", "000002")
    moedb.copy(source, bucket.url)
    with moedb.open(bucket.url) as db:
        assert db.snapshot.runs[RUN_ID].missing_units == [1, 2]
        assert db.sql("select count(*) from tokens").fetchall() == [(5,)]
    for path, content in deleted.items():
        path.write_bytes(content)
    moedb.copy(source, bucket.url)
    assert bucket.contents() == files_of(source)
    moedb.copy(bucket.url, tmp_path / "back")
    verify_run(read_run(tmp_path / "back", RUN_ID))


def test_two_writers_each_unit_has_one_winner_and_none_is_lost(
    tmp_path: Path, bucket: Bucket
) -> None:
    stores = tmp_path / "one", tmp_path / "two"
    writers = []
    for store in stores:
        if writers:
            moedb.copy(stores[0], store)
        writer = RunWriter(store, sample_manifest(n_units=6))
        writer.begin({})
        writers.append(writer)
    for writer, units in zip(writers, ((0, 1, 2, 3), (2, 3, 4, 5)), strict=True):
        for unit in units:
            writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    done: list[moedb.MoedbError | object] = []

    def copy(store: Path) -> None:
        done.append(moedb.copy(store, bucket.url)[0])

    threads = [threading.Thread(target=copy, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    for store in stores:  # what the other one was writing is there now
        moedb.copy(store, bucket.url)
    snapshot = take_snapshot(RemoteStore(bucket.url))
    assert snapshot.runs[RUN_ID].missing_units == []
    back = tmp_path / "back"
    moedb.copy(bucket.url, back)
    write_sample(back, n_units=6)
    verify_run(read_run(back, RUN_ID))
    moedb.copy(back, bucket.url)
    assert take_snapshot(RemoteStore(bucket.url)).runs[RUN_ID].is_complete


def test_shards_that_a_stopped_writer_left_are_passed_over_or_replaced(
    source: Path, bucket: Bucket, capfd: pytest.CaptureFixture[str]
) -> None:
    deleted = unfinish(source, RUN_ID, "000001")
    moedb.copy(source, bucket.url)
    for path, content in deleted.items():
        if path.stem == "000001":
            path.write_bytes(content)
    shard = next(entry.path for entry in read_run(source, RUN_ID).segments["000001"].shards)
    place = f"{bucket.url}/runs/{RUN_ID}/{shard}"
    bucket.files.pipe_file(place, b"somebody else's")
    (done,) = moedb.copy(source, bucket.url)
    assert done.others == ("000001",) and "another writer" in capfd.readouterr().err
    assert bucket.files.cat_file(place) == b"somebody else's"
    (done,) = moedb.copy(source, bucket.url, take_over=True)
    there = {path: c for path, c in bucket.contents().items() if path != "moedb.json"}
    assert done.others == () and there == counting_files(source, RUN_ID)


def test_a_part_of_another_copy_is_told_of(source: Path, tmp_path: Path, bucket: Bucket) -> None:
    place = f"{bucket.url}/runs/{RUN_ID}/segments/000000.json"
    bucket.files.pipe_file(f"{bucket.url}/moedb.json", (source / "moedb.json").read_bytes())
    bucket.files.pipe_file(place, b"{}")
    with pytest.raises(StoreError, match=r"another copy of the run.*000000"):
        moedb.copy(source, bucket.url)
    assert not take_snapshot(RemoteStore(bucket.url)).runs
    moedb.copy(source, bucket.url, take_over=True)
    assert bucket.contents() == files_of(source)


def test_a_file_that_is_not_what_was_committed_leaves_nothing_to_see(
    source: Path, tmp_path: Path, bucket: Bucket
) -> None:
    run = read_run(source, RUN_ID)
    path = run.files("routing")[1]
    whole = path.read_bytes()
    garble(path)
    with pytest.raises(StoreDamagedError, match="not what was committed"):
        moedb.copy(source, bucket.url)
    assert not take_snapshot(RemoteStore(bucket.url)).runs
    path.write_bytes(whole)
    moedb.copy(source, bucket.url)
    name = f"{bucket.url}/runs/{RUN_ID}/{path.relative_to(run.layout.folder).as_posix()}"
    bucket.files.pipe_file(name, whole[:8] + b"\0" + whole[9:])
    with pytest.raises(StoreDamagedError, match="not what was committed") as caught:
        moedb.copy(bucket.url, tmp_path / "back")
    assert name in str(caught.value)
    assert not take_snapshot(tmp_path / "back").runs


def test_a_server_that_fails_now_and_then_is_asked_again(
    source: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.server.fail(fail=6, methods=["PUT"], seconds=0.02)
    moedb.copy(source, bucket.url)
    bucket.server.fail()
    assert bucket.contents() == files_of(source)
    moedb.copy(bucket.url, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


def test_a_bucket_that_is_full_is_told_of_and_the_copy_goes_on(
    source: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.files.pipe_file(f"{bucket.url}/moedb.json", (source / "moedb.json").read_bytes())
    bucket.server.fail(full=True)
    with pytest.raises(StoreError, match=f"{bucket.url}/runs/.* cannot be reached"):
        moedb.copy(source, bucket.url)
    bucket.server.fail()
    assert not take_snapshot(RemoteStore(bucket.url)).runs
    moedb.copy(source, bucket.url)
    assert bucket.contents() == files_of(source)


def test_other_objects_and_other_places_are_no_store(source: Path, bucket: Bucket) -> None:
    bucket.files.pipe_file(f"{bucket.url}/x", b"")
    with pytest.raises(StoreError, match="neither empty nor a moedb store"):
        moedb.copy(source, bucket.url)
    with pytest.raises(UsageError, match=r"moedb publish|not installed"):
        moedb.copy(source, "hf://datasets/a/b")


_COPY = """
import sys
import moedb
moedb.copy(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("remotely", [True, False])
def test_a_kill_at_any_moment_shows_no_half_of_a_run(
    tmp_path: Path, bucket: Bucket, remotely: bool
) -> None:
    """A reader asks all the time; it finds no run, or a whole one."""
    source = tmp_path / "source"
    write_sample(source, n_units=8)
    rows = pa.table({"token_idx": [1], "key": ["x"], "value": ["y"]})
    add(source, RUN_ID, Addition("one", "concepts", "{}"), {"token_labels": [rows]})
    target = bucket.url if remotely else str(tmp_path / "target")
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                snapshot = take_snapshot(RemoteStore(target) if remotely else Path(target))
            except StoreError:
                continue
            if snapshot.damaged:
                seen.append(f"damaged: {snapshot.damaged}")
            for run in snapshot.runs.values():
                run.place.check_whole(run.shards())
                seen.append("whole" if run.is_complete else "half")
            time.sleep(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for moment in range(10):
            with subprocess.Popen([sys.executable, "-c", _COPY, str(source), target]) as process:
                _wait_for_progress(bucket, Path(target), remotely, 1 + 7 * moment, process)
                os.kill(process.pid, signal.SIGKILL)
        moedb.copy(source, target)
    finally:
        time.sleep(0.5)
        stop.set()
        reader.join()
    assert set(seen) == {"whole"}
    if remotely:
        moedb.copy(target, tmp_path / "target")
    assert counting_files(tmp_path / "target", RUN_ID) == counting_files(source, RUN_ID)
    verify_run(read_run(tmp_path / "target", RUN_ID))
    assert moedb.copy(source, target)[0].state == "same"


def _wait_for_progress(
    bucket: Bucket, target: Path, remotely: bool, n_files: int, process: "subprocess.Popen[bytes]"
) -> None:
    """Wait until so many files are there, or the copy is done."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if remotely:
            n = len(bucket.files.find(bucket.url)) if bucket.files.exists(bucket.url) else 0
        else:
            n = sum(1 for path in target.rglob("*") if path.is_file())
        if n >= n_files:
            return
        time.sleep(0.01)


def test_the_command_says_what_became_of_each_run(
    source: Path, bucket: Bucket, capfd: pytest.CaptureFixture[str]
) -> None:
    from moedb.cli import run_cli

    for arguments, said in (
        (("--dry-run",), " MB) to copy"),
        ((), " MB) copied"),
        ((), "nothing to do"),
    ):
        assert run_cli(["copy", str(source), bucket.url, *arguments]) == 0
        out, _ = capfd.readouterr()
        assert out.startswith(f"{RUN_ID}: ") and said in out
    assert run_cli(["verify", "--store", bucket.url]) == 0
    assert capfd.readouterr().out.startswith(f"{RUN_ID}: sound")
    assert json.loads((RunLayout(source, RUN_ID).manifest).read_text())["run_id"] == RUN_ID
