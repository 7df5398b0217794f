"""Rows that are added to a complete run: seen whole or not at all, and taken out again."""

import json
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import (
    FaultsError,
    StoreDamagedError,
    StoreError,
    StoreVersionError,
    UsageError,
)
from moedb.schemas.additions import Addition
from moedb.schemas.manifests import SegmentManifest, StoreManifest
from moedb.schemas.seals import seal
from moedb.schemas.tables import TABLES
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import additions_of
from moedb.store.reading.listing import read_store
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete import added_rows, additions
from moedb.store.writing.complete.additions import add, append, remove_addition
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.contents import run_contents
from tests.support.stopping import killed_at_each_call
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, sample_manifest, write_sample

AT_ONCE = timedelta(0)
LABELS = "select token_idx, key, value from token_labels order by all"


def labels(key: str, *tokens: int, value: str = "yes") -> pa.Table:
    n = len(tokens)
    return pa.table({"token_idx": list(tokens), "key": [key] * n, "value": [value] * n})


def concepts(name: str, config: str = "{}") -> Addition:
    return Addition(name, "concepts", config)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store", n_units=3)  # 15 tokens
    return tmp_path / "store"


def labels_of(store: Path) -> list[tuple[object, ...]]:
    with moedb.open(store) as db:
        return db.sql(LABELS).fetchall()


def files_on_disk(store: Path) -> set[Path]:
    layout = RunLayout(store, RUN_ID)
    return {*layout.tables.rglob("*.parquet"), *layout.segments.iterdir()}


def committed_files(store: Path) -> set[Path]:
    run = read_run(store, RUN_ID)
    tables = {path for table in TABLES for path in run.files(table.name)}
    return {*tables, *(run.layout.folder / s.path for s in run.segments.values())}


def test_rows_are_added_replaced_and_removed(store: Path) -> None:
    before = run_contents(store, RUN_ID)
    found = add(store, RUN_ID, concepts("one", '{"a": 1}'), {"token_labels": [labels("x", 3, 1)]})
    assert found.n_rows == {"token_labels": 2} and found.about.config == '{"a": 1}'
    assert labels_of(store) == [(1, "x", "yes"), (3, "x", "yes")]
    with moedb.open(store) as db:  # an open store stays as it was
        add(store, RUN_ID, concepts("two"), {"token_labels": [labels("y", 0)]})
        assert len(db.sql(LABELS).fetchall()) == 2
        one = concepts("one", '{"a": 2}')
        add(store, RUN_ID, one, {"token_labels": [labels("z", 4)]}, replace=True)
        assert len(db.sql(LABELS).fetchall()) == 2
    assert labels_of(store) == [(0, "y", "yes"), (4, "z", "yes")]
    run = read_run(store, RUN_ID)
    assert [*additions_of(run)] == ["two", "one"] and verify_run(run).n_decisions == 60
    assert additions_of(run)["one"].about.config == '{"a": 2}'
    assert run.row["finished_at"] == run.head.finished_at and run.is_complete
    remove_addition(store, RUN_ID, "one")
    remove_addition(store, RUN_ID, "two")
    assert run_contents(store, RUN_ID) == before and not additions_of(read_run(store, RUN_ID))
    verify_run(read_run(store, RUN_ID))


def test_what_is_removed_at_once_leaves_no_file(store: Path) -> None:
    before = files_on_disk(store)
    add(store, RUN_ID, concepts("one"), {"token_labels": [labels("x", 1)]}, kept_for=AT_ONCE)
    assert len(files_on_disk(store)) == len(before) + 2
    remove_addition(store, RUN_ID, "one", kept_for=AT_ONCE)
    assert files_on_disk(store) == before
    assert [path.name for path in RunLayout(store, RUN_ID).heads.iterdir()] == ["000002.json"]


def test_what_a_compaction_replaced_stays_as_long_as_it_said(store: Path) -> None:
    with moedb.open(store) as db:
        compact_run(store, RUN_ID, timedelta(hours=1))
        add(store, RUN_ID, concepts("one"), {"token_labels": [labels("x", 1)]}, kept_for=AT_ONCE)
        assert db.sql("select count(*) from routing").fetchall() == [(60,)]


def test_parts_make_one_addition(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        rows = {"token_labels": [labels(f"k{n}", n)]}
        assert append(store, RUN_ID, concepts("one"), f"part-{n}", rows)
        assert not append(store, RUN_ID, concepts("one"), f"part-{n}", rows)
    add(store, RUN_ID, concepts("two"), {"token_labels": [labels("other", 9)]})
    (one, two) = additions_of(read_run(store, RUN_ID)).values()
    assert one.about.parts == ("part-0", "part-1", "part-2") and one.n_segments == 3
    assert (two.about.parts, two.n_segments) == ((), 1)
    rows = labels_of(store)
    assert len(rows) == 4

    compact_run(store, RUN_ID, AT_ONCE)
    run = read_run(store, RUN_ID)
    assert labels_of(store) == rows and len(run.segments) == 3
    assert len(run.files("token_labels")) == 2  # the additions stay apart
    (after, _) = additions_of(run).values()
    assert (after.about, after.n_rows, after.n_segments) == (one.about, one.n_rows, 1)
    assert not append(store, RUN_ID, concepts("one"), "part-1", {})
    verify_run(run)
    assert compact_run(store, RUN_ID, AT_ONCE) is None

    remove_addition(store, RUN_ID, "one", kept_for=AT_ONCE)
    assert labels_of(store) == [(9, "other", "yes")]

    monkeypatch.setattr(additions, "SEGMENTS_AT_ONCE", 4)
    for n in range(6):
        append(store, RUN_ID, concepts("many"), str(n), {"token_labels": [labels(f"m{n}", n)]})
    many = additions_of(read_run(store, RUN_ID))["many"]
    assert (many.n_segments, len(many.about.parts), many.n_rows) == (2, 6, {"token_labels": 6})


def test_what_does_not_fit_is_refused_and_leaves_nothing(store: Path) -> None:
    add(store, RUN_ID, concepts("one"), {"token_labels": [labels("x", 1)]}, kept_for=AT_ONCE)
    append(store, RUN_ID, concepts("parts"), "a", {}, kept_for=AT_ONCE)
    before = files_on_disk(store)

    def refused(match: str, error: type[Exception], name: str, rows: object) -> None:
        with pytest.raises(error, match=match):
            add(store, RUN_ID, concepts(name), rows)  # type: ignore[arg-type]
        assert files_on_disk(store) == before

    of = "token_labels"
    refused("an addition named 'one' already.*\n.*--replace", UsageError, "one", {})
    refused(
        r"of the addition 'one' with the key 'x' already\n.*--name one --replace",
        UsageError,
        "two",
        {of: [labels("x", 2)]},
    )
    refused("no rows are added to 'routing'", UsageError, "two", {"routing": []})
    refused("expected 0 to 14, got 15", ValueError, "two", {of: [labels("y", 1), labels("y", 15)]})
    refused("expected 0 to 14, got -1", ValueError, "two", {of: [labels("y", -1)]})
    refused("expected columns", ValueError, "two", {of: [pa.table({"token_idx": [1]})]})
    null = pa.table({"token_idx": [1], "key": ["y"], "value": pa.array([None], pa.string())})
    refused("null where none", ValueError, "two", {of: [null]})
    refused("no name for an addition: '../up'", UsageError, "../up", {})
    with pytest.raises(UsageError, match=r"no addition named 'on'; did you mean one\?"):
        remove_addition(store, RUN_ID, "on")
    with pytest.raises(UsageError, match="which has no parts"):
        append(store, RUN_ID, concepts("one"), "a", {})
    with pytest.raises(UsageError, match=r'other settings: \{\}, and not \{"a": 1\}'):
        append(store, RUN_ID, concepts("parts", '{"a": 1}'), "b", {})
    assert files_on_disk(store) == before


def test_labels_that_the_run_has_of_its_own_are_not_added_to(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, sample_manifest(n_units=1, arrays=()))
    from tests.support.stores.samples import unit_rows

    writer.begin({})
    tables, arrays = unit_rows(writer.manifest, 0)
    own = {"token_idx": [0], "key": ["role"], "value": ["end"]}
    writer.commit_unit(0, {**tables, "token_labels": own}, arrays)
    with pytest.raises(StoreError, match="incomplete; only complete runs are added to"):
        add(tmp_path, RUN_ID, concepts("one"), {})
    writer.finish()
    with pytest.raises(UsageError, match="of its own with the key 'role'"):
        add(tmp_path, RUN_ID, concepts("one"), {"token_labels": [labels("role", 3)]})


def test_rows_come_in_pieces_and_lie_in_order(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(added_rows, "STRETCH_ROWS", 4)
    monkeypatch.setattr(added_rows, "FILE_ROWS", 8)
    taken: list[int] = []

    def pieces() -> object:
        for n in range(14, -1, -1):
            taken.append(n)
            yield labels("b" if n % 2 else "a", n).to_batches()[0]

    add(store, RUN_ID, concepts("one"), {"token_labels": pieces()})  # type: ignore[dict-item]
    run = read_run(store, RUN_ID)
    assert len(taken) == 15 and len(run.files("token_labels")) == 2
    import pyarrow.parquet as pq

    first = pq.ParquetFile(run.files("token_labels")[0])
    assert [first.metadata.row_group(n).num_rows for n in range(2)] == [4, 4]
    rows = first.read_row_group(0).select(["key", "token_idx"]).to_pylist()
    assert [(row["key"], row["token_idx"]) for row in rows] == [
        ("a", 12),
        ("a", 14),
        ("b", 11),
        ("b", 13),
    ]
    assert [row[0] for row in labels_of(store)] == list(range(15))


def test_two_at_once_both_come_in(store: Path) -> None:
    barrier = threading.Barrier(6, timeout=30)
    errors: list[Exception] = []

    def work(n: int) -> None:
        barrier.wait()
        try:
            if n == 5:
                compact_run(store, RUN_ID)
            elif n >= 3:
                append(store, RUN_ID, concepts("parts"), str(n), {})
            else:
                add(store, RUN_ID, concepts(f"of-{n}"), {"token_labels": [labels(f"k{n}", n)]})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    run = read_run(store, RUN_ID)
    assert {*additions_of(run)} == {"of-0", "of-1", "of-2", "parts"}
    assert additions_of(run)["parts"].about.parts == ("3", "4")
    assert labels_of(store) == [(n, f"k{n}", "yes") for n in range(3)]
    verify_run(run)


def test_a_staging_folder_that_goes_between_two_looks_is_made_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Path.mkdir, []

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == ".staging" and not failed:
            failed.append(path)
            raise FileExistsError(17, "File exists")
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    add(store, RUN_ID, concepts("a"), {"token_labels": [labels("k", 1)]})
    assert failed and labels_of(store) == [(1, "k", "yes")]


def test_the_same_key_twice_at_once_comes_in_once(store: Path) -> None:
    barrier = threading.Barrier(2, timeout=30)
    errors: list[Exception] = []

    def pieces() -> object:
        barrier.wait()  # both have looked, and find the key free
        yield labels("k", 1)

    def work(n: int) -> None:
        try:
            add(store, RUN_ID, concepts(f"of-{n}"), {"token_labels": pieces()})  # type: ignore[dict-item]
        except UsageError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1 and "'k' already" in str(errors[0])
    assert labels_of(store) == [(1, "k", "yes")]


def test_what_was_changed_in_the_files_is_found(store: Path) -> None:
    add(store, RUN_ID, concepts("one"), {"token_labels": [labels("x", 1)]})
    run = read_run(store, RUN_ID)
    (path,) = run.files("token_labels")
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    with pytest.raises(FaultsError, match=r"unit added-000001-\w+: .* is not what was committed"):
        verify_run(run)


def test_two_labels_of_one_key_on_a_token_are_found(store: Path) -> None:
    rows = [labels("x", 1), labels("x", 1, value="no")]
    add(store, RUN_ID, concepts("one"), {"token_labels": rows})
    with pytest.raises(FaultsError, match="1 tokens with two labels of one key"):
        verify_run(read_run(store, RUN_ID))


def test_formats(tmp_path: Path) -> None:
    old = unpack("format-1", tmp_path / "1")
    run_id = next(run.run_id for run in take_snapshot(old).runs.values() if run.is_complete)
    with pytest.raises(StoreVersionError, match="moedb migrate"):
        add(old, run_id, concepts("one"), {})
    two = unpack("format-2", tmp_path / "2")
    assert read_store(two).minor == 0
    add(two, run_id, concepts("one"), {"token_labels": [labels("x", 1)]})
    assert read_store(two).minor == 1 and additions_of(read_run(two, run_id))
    (two / "moedb.json").write_text(StoreManifest(minor=9).to_json())
    for change in (
        lambda: remove_addition(two, run_id, "one"),
        lambda: compact_run(two, run_id),
        lambda: write_sample(two),
    ):
        with pytest.raises(StoreVersionError, match=r"has format 2\.9, which may hold"):
            change()


def test_commands_know_of_them(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    append(store, RUN_ID, concepts("one"), "a", {"token_labels": [labels("x", 1, 2)]})

    def run(*arguments: str) -> str:
        assert run_cli([*arguments, "--store", str(store)]) == 0
        return capfd.readouterr().out

    shown = run("show", RUN_ID, "--format", "csv")
    assert 'addition,one,"concepts, 20' in shown and "1 parts: 2 rows of token_labels" in shown
    assert "token label,x,1 values" in shown
    assert "complete" in run("runs") and "sound" in run("verify")
    assert run("compact") == f"{RUN_ID}: 7 files of 15\n"
    assert "2" in run("sql", "select count(*) from token_labels where key = 'x'", "--format", "csv")
    run("rm", RUN_ID, "--yes")
    assert not RunLayout(store, RUN_ID).folder.exists()
    listed = capfd.readouterr().out
    assert run_cli(["schema", "--where", "name = 'token_labels'", "--format", "csv"]) == 0
    listed = capfd.readouterr().out
    assert "a label of a token (added to by moedb label-tokens)" in listed


_IMPORTS = """
from datetime import timedelta
import pyarrow as pa
from moedb.schemas.additions import Addition
from moedb.store.writing.complete.additions import add, append, remove_addition
import moedb.store.verification.run  # so that no copy imports anything
NOW = timedelta(0)
ONE = Addition("one", "concepts")
NEW = {"token_labels": [pa.table({"token_idx": [3], "key": ["n"], "value": ["yes"]})]}
import pyarrow.parquet, duckdb
pa.table(NEW["token_labels"][0]).take([0])
"""
_CALLS = ("fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir", "open")
OLD = [(1, "o", "yes"), (2, "o", "yes")]


@pytest.mark.parametrize(
    ("work", "after"),
    [
        (
            'add(store, run, Addition("two", "concepts"), NEW, kept_for=NOW)',
            [*OLD, (3, "n", "yes")],
        ),
        ('append(store, run, ONE, "b", NEW, kept_for=NOW)', [*OLD, (3, "n", "yes")]),
        ("add(store, run, ONE, NEW, replace=True, kept_for=NOW)", [(3, "n", "yes")]),
        ('remove_addition(store, run, "one", kept_for=NOW)', []),
    ],
    ids=["add", "append", "replace", "remove"],
)
def test_killed_at_any_moment_all_of_it_is_there_or_nothing(
    tmp_path: Path, work: str, after: list[tuple[object, ...]]
) -> None:
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    write_sample(whole, n_units=2, arrays=("router_logits",))
    own = run_contents(whole, RUN_ID)
    rows = {"token_labels": [labels("o", 1, 2)]}
    append(whole, RUN_ID, concepts("one"), "a", rows, kept_for=AT_ONCE)
    copies.mkdir()
    code = killed_at_each_call(_IMPORTS, work, _CALLS)
    done = subprocess.run(
        [sys.executable, "-c", code, str(whole), str(copies), RUN_ID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n_moments = int(done.stdout)
    assert n_moments > 8
    seen = set()
    for n in range(1, n_moments + 1):
        store = copies / str(n)
        snapshot = take_snapshot(store)
        assert not snapshot.damaged and snapshot.runs[RUN_ID].is_complete
        found = labels_of(store)
        assert found in (OLD, after)
        seen.add(tuple(found))
        if n % 4 == 0:
            verify_run(snapshot.runs[RUN_ID])
        # whoever comes next goes on from there, and sweeps what was left
        add(store, RUN_ID, concepts("next"), {}, kept_for=AT_ONCE)
        remove_addition(store, RUN_ID, "next", kept_for=AT_ONCE)
        assert labels_of(store) == found and files_on_disk(store) == committed_files(store)
        assert not RunLayout(store, RUN_ID).staging.exists()
        if n % 4 == 0:
            contents = run_contents(store, RUN_ID)
            contents.pop("token_labels", None)
            assert contents == own
        shutil.rmtree(store)
    assert seen == {tuple(OLD), tuple(after)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"addition": "one"}, "addition: expected dict, got 'one'"),
        ({"name": 7}, "addition: name: expected str, got 7"),
        ({"config": "a\0b"}, "addition: config: expected no null character"),
        ({"parts": "abc"}, "addition: parts: expected list, got 'abc'"),
        ({"kind": None}, "addition: kind: expected str, got None"),
        ({"unit": "000007"}, "addition: of the unit '000007'"),
    ],
)
def test_a_manifest_that_says_something_else_is_damaged(
    store: Path, changed: dict[str, object], said: str
) -> None:
    add(store, RUN_ID, concepts("one"), {"token_labels": [labels("x", 1)]})
    (path,) = RunLayout(store, RUN_ID).segments.glob("added-*.json")
    content = json.loads(path.read_text())
    content["later"] = content["addition"]["later"] = 1  # what a later version may add
    SegmentManifest.from_json(resealed(content), "x")
    for name, value in changed.items():
        (content if name in content else content["addition"])[name] = value
    with pytest.raises(StoreDamagedError, match=said):
        SegmentManifest.from_json(resealed(content), "x")


def resealed(content: dict[str, object]) -> str:
    return seal(json.dumps({k: v for k, v in content.items() if k != "seal"}, indent=1))
