"""Copying from folder to folder: what is there afterwards, what is refused, and what is left."""

import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from filelock import FileLock

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreDamagedError, StoreError, StoreVersionError, UsageError
from moedb.schemas.additions import Addition
from moedb.schemas.run_names import RunName
from moedb.schemas.seals import seal
from moedb.store.copying.contents import contents_of
from moedb.store.layout import RunLayout, copying_folder
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete.additions import add, remove_addition
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.naming import name_run
from moedb.store.writing.run_writer import RunWriter
from tests.store.copying.places import counting_files, files_of
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, sample_manifest, unfinish, unit_rows, write_sample
from tests.support.unwritable import unwritable

AT_ONCE = timedelta(0)


def labels(value: str) -> dict[str, list[pa.Table]]:
    return {"token_labels": [pa.table({"token_idx": [1], "key": [value], "value": [value]})]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_sample(tmp_path / "source")
    return tmp_path / "source"


def test_a_complete_run_is_copied_byte_for_byte(source: Path, tmp_path: Path) -> None:
    name_run(source, RUN_ID, RunName("first", "a note"))
    (done,) = moedb.copy(source, tmp_path / "target")
    assert (done.run_id, done.state, done.is_complete) == (RUN_ID, "copied", True)
    run = read_run(source, RUN_ID)
    assert done.n_files == sum(1 for _ in run.entries()) and done.n_bytes == run.n_bytes()
    assert files_of(tmp_path / "target") == files_of(source)
    verify_run(read_run(tmp_path / "target", RUN_ID))
    (again,) = moedb.copy(source, tmp_path / "target")
    assert (again.state, again.n_files, again.n_bytes) == ("same", 0, 0)


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_every_format_is_copied(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    moedb.copy(store, tmp_path / "target")
    for run_id in take_snapshot(store).runs:
        assert counting_files(tmp_path / "target", run_id) == counting_files(store, run_id)
        verify_run(read_run(tmp_path / "target", run_id))
    assert {done.state for done in moedb.copy(store, tmp_path / "target")} == {"same"}


def test_stores_of_different_formats_are_refused(source: Path, tmp_path: Path) -> None:
    old = unpack("format-1", tmp_path)
    for stores in ((old, source), (source, old)):
        before = files_of(stores[1])
        with pytest.raises(StoreVersionError, match="different formats"):
            moedb.copy(*stores)
        assert files_of(stores[1]) == before


def test_some_runs_are_copied(source: Path, tmp_path: Path) -> None:
    write_sample(source, run_id="text-ffffffffff")
    assert [d.run_id for d in moedb.copy(source, tmp_path / "a", runs="text-f")] == [
        "text-ffffffffff"
    ]
    assert [*take_snapshot(tmp_path / "a").runs] == ["text-ffffffffff"]
    with pytest.raises(UsageError, match="no run named"):
        moedb.copy(source, tmp_path / "b", runs=["x"])
    assert not (tmp_path / "b").exists()


def test_a_dry_run_leaves_nothing(source: Path, tmp_path: Path) -> None:
    (planned,) = moedb.copy(source, tmp_path / "target", dry_run=True)
    assert planned.n_bytes == read_run(source, RUN_ID).n_bytes()
    assert not (tmp_path / "target").exists()
    moedb.copy(source, tmp_path / "target")
    add(source, RUN_ID, Addition("one", "concepts", "{}"), labels("x"))
    before = files_of(tmp_path / "target")
    (planned,) = moedb.copy(source, tmp_path / "target", dry_run=True)
    assert (planned.state, planned.n_files) == ("copied", 1)
    assert files_of(tmp_path / "target") == before


def test_what_was_added_or_compacted_since_is_brought(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    moedb.copy(source, target)
    add(source, RUN_ID, Addition("one", "concepts", "{}"), labels("x"))
    with moedb.open(target) as db:
        (done,) = moedb.copy(source, target)
        assert done.n_files == 1
        assert db.sql("select count(*) from token_labels").fetchall() == [(0,)]
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    add(source, RUN_ID, Addition("two", "concepts", "{}"), labels("y"))
    compact_run(source, RUN_ID, AT_ONCE)
    (done,) = moedb.copy(source, target)
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    for value in ("a", "b"):  # compacted and swept twice in between
        add(source, RUN_ID, Addition(value, "concepts", "{}"), labels(value), kept_for=AT_ONCE)
        compact_run(source, RUN_ID, AT_ONCE)
    moedb.copy(source, target)
    remove_addition(source, RUN_ID, "one")
    moedb.copy(source, target)
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    verify_run(read_run(target, RUN_ID))
    assert not [path for path in (target / "runs").iterdir() if path.name.startswith(".copying")]
    # and a writer at the target goes on with it
    add(target, RUN_ID, Addition("three", "concepts", "{}"), labels("z"))
    assert moedb.copy(source, target)[0].state == "ahead"
    moedb.copy(target, source)
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)


def test_runs_that_were_changed_apart_are_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    moedb.copy(source, target)
    add(source, RUN_ID, Addition("one", "concepts", "{}"), labels("x"))
    add(target, RUN_ID, Addition("two", "concepts", "{}"), labels("y"))
    before = files_of(target)
    with pytest.raises(StoreError, match=r"changed here and at .*, each apart"):
        moedb.copy(source, target)
    assert files_of(target) == before


def test_another_run_of_the_name_is_refused(source: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "target", n_units=2)
    with pytest.raises(StoreError, match="another run"):
        moedb.copy(source, tmp_path / "target")


def test_an_incomplete_run_is_copied_unit_by_unit_and_finished(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    deleted = unfinish(source, RUN_ID, "000001", "000002")
    (done,) = moedb.copy(source, target)
    assert done.state == "copied" and not done.is_complete
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    assert read_run(target, RUN_ID).missing_units == [1, 2]
    for path, content in deleted.items():
        if path.stem == "000001":
            path.write_bytes(content)
    moedb.copy(source, target)
    assert read_run(target, RUN_ID).missing_units == [2]
    assert moedb.copy(source, target)[0].state == "same"
    for path, content in deleted.items():
        path.write_bytes(content)
    moedb.copy(source, target)
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    verify_run(read_run(target, RUN_ID))


def test_a_run_that_was_compacted_when_it_ended_is_finished(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    deleted = unfinish(source, RUN_ID, "000002")
    moedb.copy(source, target)
    for path, content in deleted.items():
        path.write_bytes(content)
    compact_run(source, RUN_ID, AT_ONCE)
    moedb.copy(source, target)
    assert counting_files(target, RUN_ID) == counting_files(source, RUN_ID)
    verify_run(read_run(target, RUN_ID))


def test_a_capture_goes_on_where_a_copy_of_it_ended(source: Path, tmp_path: Path) -> None:
    unfinish(source, RUN_ID, "000001")
    moedb.copy(source, tmp_path / "target")
    write_sample(tmp_path / "target")
    verify_run(read_run(tmp_path / "target", RUN_ID))


def two_captures(tmp_path: Path) -> tuple[Path, Path, RunWriter, RunWriter]:
    """Two incomplete runs of one configuration, of which each unit is written apart."""
    stores = tmp_path / "one", tmp_path / "two"
    writers = []
    for store in stores:
        writer = RunWriter(store, sample_manifest(n_units=4))
        if store != stores[0]:
            moedb.copy(stores[0], store)  # with the rows of the run as a whole
        writer.begin({})
        writers.append(writer)
    return (*stores, *writers)  # type: ignore[return-value]


def test_units_of_two_writers_come_together_and_each_has_one_winner(tmp_path: Path) -> None:
    one, two, first, second = two_captures(tmp_path)
    for writer, units in ((first, (0, 1)), (second, (1, 2, 3))):
        for unit in units:
            writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    target = tmp_path / "target"
    assert moedb.copy(one, target)[0].others == ()
    assert moedb.copy(two, target)[0].others == ("000001",)
    assert read_run(target, RUN_ID).missing_units == []
    held, theirs = files_of(target), files_of(one)
    for path in (f"runs/{RUN_ID}/segments/000001.json",):
        assert held[path] == theirs[path]
    write_sample(target, n_units=4)
    verify_run(read_run(target, RUN_ID))
    # two complete runs that were captured apart are not one
    write_sample(two, n_units=4)
    with pytest.raises(StoreError, match=r"changed here and at|captured apart"):
        moedb.copy(two, target)


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)


def test_a_file_that_is_not_what_was_committed_leaves_nothing_to_see(
    source: Path, tmp_path: Path
) -> None:
    run = read_run(source, RUN_ID)
    for table in ("routing", "tokens"):
        path = run.files(table)[1]
        whole = path.read_bytes()
        garble(path)
        with pytest.raises(StoreDamagedError, match="not what was committed") as caught:
            moedb.copy(source, tmp_path / table)
        assert str(path) in str(caught.value)
        found = take_snapshot(tmp_path / table)
        assert not found.runs and not found.damaged
        path.write_bytes(whole)
    shard = next(path for path in run.layout.arrays.rglob("c/**/*") if path.is_file())
    whole = shard.read_bytes()
    garble(shard)
    with pytest.raises(StoreDamagedError, match="not what was committed"):
        moedb.copy(source, tmp_path / "target")
    shard.write_bytes(whole[:-1])
    with pytest.raises(StoreDamagedError, match="committed were"):
        moedb.copy(source, tmp_path / "target")
    shard.write_bytes(whole)
    moedb.copy(source, tmp_path / "target")
    assert files_of(tmp_path / "target") == files_of(source)


def test_damaged_runs_are_left_out_and_said(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_sample(source, run_id="text-ffffffffff")
    RunLayout(source, "text-ffffffffff").segment("000001").unlink()
    code = run_cli(["copy", str(source), str(tmp_path / "target")])
    out, err = capfd.readouterr()
    assert code == 3 and f"{RUN_ID}: " in out and "not copied: text-ffffffffff" in err
    assert [*take_snapshot(tmp_path / "target").runs] == [RUN_ID]
    with pytest.raises(StoreDamagedError):
        moedb.copy(source, tmp_path / "target", runs="text-f")


def hostile(source: Path, path: str) -> None:
    """Have a table's file be at a place of moedb's own, all hashes right."""
    import hashlib

    layout = RunLayout(source, RUN_ID)
    segment = json.loads(layout.segment("000000").read_text())
    del segment["seal"]
    old = layout.folder / segment["tables"]["tokens"][0]["path"]
    new = layout.folder / path
    new.parent.mkdir(parents=True, exist_ok=True)
    if not new.exists():
        shutil.copy(old, new)
    entry = segment["tables"]["tokens"][0]
    entry.update(
        path=path,
        n_bytes=new.stat().st_size,
        sha256=hashlib.sha256(new.read_bytes()).hexdigest(),
    )
    layout.segment("000000").write_text(seal(json.dumps(segment, indent=1)))
    head = json.loads(layout.head(0).read_text())
    del head["seal"]
    for named in head["segments"]:
        if named["path"] == "segments/000000.json":
            content = layout.segment("000000").read_bytes()
            named.update(n_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    layout.head(0).write_text(seal(json.dumps(head, indent=1)))


@pytest.mark.parametrize(
    "path",
    [
        "run.json",
        "name.json",
        "heads/000009.json",
        "segments/000009.json",
        ".commit.lock",
        "tables/.hidden/x.parquet",
        "arrays.zarr/zarr.json",
        "answers/x.jsonl",
    ],
)
def test_a_table_whose_file_is_somewhere_else_is_not_copied(
    source: Path, tmp_path: Path, path: str
) -> None:
    hostile(source, path)
    assert RUN_ID in take_snapshot(source).runs or path.endswith((".json", ".lock", ".jsonl"))
    with pytest.raises(StoreDamagedError):
        moedb.copy(source, tmp_path / "target", runs=RUN_ID)
    assert not (tmp_path / "target").exists() or not take_snapshot(tmp_path / "target").runs


def test_links_in_a_source_and_a_target_are_refused(source: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moedb.copy(source, tmp_path / "other")
    target = tmp_path / "target"
    write_sample(target, run_id="text-ffffffffff")
    copying_folder(target, RUN_ID).symlink_to(elsewhere)
    with pytest.raises(StoreDamagedError, match="symbolic link"):
        moedb.copy(source, target)
    copying_folder(target, RUN_ID).unlink()
    (target / "runs" / RUN_ID).symlink_to(elsewhere)
    with pytest.raises(StoreDamagedError, match="symbolic link"):
        moedb.copy(source, target)
    assert list(elsewhere.iterdir()) == []


def test_a_name_that_is_taken_is_left_out(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name_run(source, RUN_ID, RunName("mine", "a note"))
    target = tmp_path / "target"
    write_sample(target, run_id="text-ffffffffff")
    name_run(target, "text-ffffffffff", RunName("mine"))
    moedb.copy(source, target)
    assert "without its name 'mine'" in capfd.readouterr().err
    assert take_snapshot(target).runs[RUN_ID].named == RunName(None, "a note")


def test_a_folder_of_something_else_is_no_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for name, said in (("file", "no folder"), ("full", "neither empty nor"), ("file/x", "file")):
        with pytest.raises(StoreError, match=said):
            moedb.copy(source, tmp_path / name)
    with pytest.raises(UsageError, match="both stores are the same"):
        moedb.copy(source, source.parent / "." / "source")
    with pytest.raises(StoreError, match="does not exist"):
        moedb.copy(tmp_path / "nowhere", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_target_that_cannot_be_written_is_told_of(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with unwritable(tmp_path / "target"), pytest.raises(StoreError, match="cannot write the store"):
        moedb.copy(source, tmp_path / "target")
    moedb.copy(source, tmp_path / "target")
    assert files_of(tmp_path / "target") == files_of(source)


def test_a_full_disk_is_told_of_and_the_copy_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.store.copying import local_target

    calls = 0
    real = local_target.sync_file

    def full(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path)

    monkeypatch.setattr(local_target, "sync_file", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        moedb.copy(source, tmp_path / "target")
    assert "goes on" in str(caught.value) and not take_snapshot(tmp_path / "target").runs
    monkeypatch.setattr(local_target, "sync_file", real)
    moedb.copy(source, tmp_path / "target")
    assert files_of(tmp_path / "target") == files_of(source)


def test_two_copies_of_a_run_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "runs").mkdir(parents=True)
    folder = copying_folder(tmp_path / "target", RUN_ID)
    code = (
        "import sys, time\nfrom filelock import FileLock\n"
        "with FileLock(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    moedb.copy(source, tmp_path / "other")
    shutil.copy(source / "moedb.json", tmp_path / "target" / "moedb.json")
    with subprocess.Popen(
        [sys.executable, "-c", code, f"{folder}.lock"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another copy of the run"):
            moedb.copy(source, tmp_path / "target")
        process.kill()
    moedb.copy(source, tmp_path / "target")
    assert FileLock(f"{folder}.lock") and files_of(tmp_path / "target") == files_of(source)


def test_the_run_came_to_be_there_meanwhile(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy has put it there just before this one does."""
    from moedb.store.copying import local_target

    target = tmp_path / "target"
    real: Callable[..., Any] = local_target.sync_tree

    def slowly(folder: Path) -> None:
        real(folder)
        shutil.copytree(source / "runs" / RUN_ID, target / "runs" / RUN_ID)

    monkeypatch.setattr(local_target, "sync_tree", slowly)
    (done,) = moedb.copy(source, target)
    assert done.state == "same" and files_of(target) == files_of(source)


def test_a_run_is_captured_while_it_is_copied(tmp_path: Path) -> None:
    """A copy again and again, until the run is complete at both ends."""
    store, target = tmp_path / "store", tmp_path / "target"
    writer = RunWriter(store, sample_manifest(n_units=12))
    writer.begin({})

    def capture() -> None:
        for unit in range(12):
            writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
        writer.finish()

    thread = threading.Thread(target=capture)
    thread.start()
    seen = set()
    while thread.is_alive():
        (done,) = moedb.copy(store, target)
        assert done.others == ()
        seen.add(len(read_run(target, RUN_ID).segments))
    thread.join()
    moedb.copy(store, target)
    assert counting_files(target, RUN_ID) == counting_files(store, RUN_ID)
    verify_run(read_run(target, RUN_ID))


def test_the_order_is_that_of_the_format(source: Path) -> None:
    contents = contents_of(read_run(source, RUN_ID))
    units = [piece.unit for piece in contents.pieces]
    assert units == ["first", "000000", "000001", "000002", "final"]
