"""Compaction: the same rows in fewer files, whoever reads meanwhile and whenever it is killed."""

import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreError
from moedb.schemas.tables import TABLES
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import RunSnapshot, read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete import compaction
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.contents import run_contents
from tests.support.stopping import killed_at_each_call
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

AT_ONCE = timedelta(0)
LONG = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store", n_units=5)
    return tmp_path / "store"


def rows_in_file_order(run: RunSnapshot, table: str) -> list[list[tuple[object, ...]]]:
    keys = ", ".join(next(t for t in TABLES if t.name == table).sort_by)
    return [
        duckdb.sql(f"select {keys} from read_parquet('{path}')").fetchall()
        for path in run.files(table)
    ]


def table_files(store: Path) -> set[Path]:
    return set((RunLayout(store, RUN_ID).tables).rglob("*.parquet"))


def test_the_rows_are_the_same_in_one_sorted_file(store: Path) -> None:
    expected, before = run_contents(store, RUN_ID), read_run(store, RUN_ID)
    done = compact_run(store, RUN_ID, AT_ONCE)
    assert done is not None
    after = read_run(store, RUN_ID)
    assert run_contents(store, RUN_ID) == expected and after.row == before.row
    assert done.files_before == len(list(before.table_files()))
    assert done.files_after == len(list(after.table_files())) == 6
    for table in ("routing", "router_stats", "tokens", "examples"):
        (rows,) = rows_in_file_order(after, table)
        assert rows == sorted(rows)
    assert after.is_complete and not after.missing_units
    assert [entry.sha256 for entry in after.shards()] == [e.sha256 for e in before.shards()]
    assert verify_run(after).n_decisions == 5 * 5 * 2 * 2
    # what is in the folder is what counts
    assert table_files(store) == {path for t in TABLES for path in after.files(t.name)}
    assert compact_run(store, RUN_ID, AT_ONCE) is None


def test_files_are_no_larger_than_asked_for(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_contents(store, RUN_ID)
    monkeypatch.setattr(compaction, "FILE_ROWS", 40)  # two units of routing, eight of tokens
    compact_run(store, RUN_ID, AT_ONCE)
    run = read_run(store, RUN_ID)
    assert [len(rows) for rows in rows_in_file_order(run, "routing")] == [40, 40, 20]
    assert all(rows == sorted(rows) for rows in rows_in_file_order(run, "routing"))
    assert len(run.files("tokens")) == 1
    assert run_contents(store, RUN_ID) == expected


def test_rows_that_the_order_of_the_units_does_not_sort_are_sorted(store: Path) -> None:
    """As of sweeps, whose units hold the same examples under one condition after the other."""
    manifest = sample_manifest(n_units=2, run_id="intervene-0", arrays=("router_logits",))
    writer = RunWriter(store, manifest)
    writer.begin({})
    for unit in range(2):
        rows = {
            "condition_id": [0, 1, 2],
            "example_id": [1 - unit] * 3,
            "target": [" a", " b", " c"],
            "predicted": [" a"] * 3,
            "correct": [1, 0, 0],
            "target_logprob": [-1.0] * 3,
            "logit_diff": [None, 0.5, 0.25],
        }
        writer.commit_unit(unit, {"predictions": rows}, {})
    writer.finish()
    expected = run_contents(store, "intervene-0")
    compact_run(store, "intervene-0", AT_ONCE)
    (found,) = rows_in_file_order(read_run(store, "intervene-0"), "predictions")
    assert found == [(c, e) for c in range(3) for e in range(2)]
    assert run_contents(store, "intervene-0") == expected


def test_who_has_the_run_open_goes_on_until_its_time_is_over(store: Path) -> None:
    count = "select count(*), sum(weight) from routing"
    with moedb.open(store) as db:
        expected = db.sql(count).fetchall()
        compact_run(store, RUN_ID, LONG)
        assert db.sql(count).fetchall() == expected
        with moedb.open(store) as new:
            assert new.sql(count).fetchall() == expected
            assert new.sql("select status from runs").fetchall() == [("complete",)]
        both = table_files(store)
        write_sample(store, n_units=5)  # nothing is swept: its time has not come
        assert table_files(store) == both and compact_run(store, RUN_ID) is None
        assert db.sql(count).fetchall() == expected
    assert len(list(RunLayout(store, RUN_ID).heads.iterdir())) == 2


def test_who_finds_the_files_gone_is_told_to_open_again(store: Path) -> None:
    with moedb.open(store) as db:
        lazy = db.sql("select sum(weight) from routing")
        compact_run(store, RUN_ID, AT_ONCE)
        for ask in (
            lazy.fetchall,
            lambda: db.sql("select sum(weight) from routing").fetchall(),
            lambda: db.query("expert-frequency").fetchall(),
            lambda: db.query("co-activation").fetchall(),
            lambda: db.sql("from co_activation()").fetchall(),
        ):
            with pytest.raises(StoreError, match=r"is gone: .* since the store was opened") as said:
                ask()
            assert "open the store again" in str(said.value) and said.value.exit_code == 3
    with moedb.open(store) as db:
        assert db.sql("select count(*) from routing").fetchall() == [(100,)]


def test_what_was_replaced_goes_when_its_time_is_over(store: Path) -> None:
    compact_run(store, RUN_ID, timedelta(seconds=-1))
    # that compaction sweeps itself; a store in which it was killed before that is swept by the next
    assert len(table_files(store)) == 6
    layout = RunLayout(store, RUN_ID)
    assert [path.name for path in layout.heads.iterdir()] == ["000001.json"]
    assert len(list(layout.segments.iterdir())) == 1
    assert write_sample(store, n_units=5).snapshot().is_complete


def test_an_incomplete_run_is_not_compacted(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, sample_manifest())
    writer.begin({})
    writer.commit_unit(1, *unit_rows(writer.manifest, 1))
    with pytest.raises(StoreError, match="incomplete"):
        compact_run(tmp_path, RUN_ID)


def test_a_run_of_many_units_is_compacted_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.store.writing import run_writer

    monkeypatch.setattr(run_writer, "UNITS_AT_END", 3)
    write_sample(tmp_path / "few", n_units=3)
    write_sample(tmp_path / "many", n_units=4)
    write_sample(tmp_path / "as before", n_units=3)
    assert len(read_run(tmp_path / "few", RUN_ID).files("routing")) == 3
    assert len(read_run(tmp_path / "many", RUN_ID).files("routing")) == 1


def test_of_two_compactions_at_once_one_wins(store: Path) -> None:
    expected = run_contents(store, RUN_ID)
    barrier = threading.Barrier(3, timeout=30)
    outcomes: list[object] = []

    def work() -> None:
        barrier.wait()
        outcomes.append(compact_run(store, RUN_ID, LONG))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 3 and sum(outcome is not None for outcome in outcomes) == 1
    assert run_contents(store, RUN_ID) == expected
    layout = RunLayout(store, RUN_ID)
    assert sorted(path.name for path in layout.heads.iterdir()) == ["000000.json", "000001.json"]
    assert len(list(layout.segments.glob("compacted-*"))) == 1
    assert not layout.staging.exists()


_KILLED = killed_at_each_call(
    "from datetime import timedelta\n"
    "from moedb.store.writing.complete.compaction import compact_run\n"
    "import moedb.store.verification.run  # so that no copy imports anything",
    "compact_run(store, run, timedelta(0))",
    ("fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir", "open"),
)


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    write_sample(whole, n_units=2, arrays=("router_logits",))
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
    assert n_moments > 50
    n_segments = set()
    for n in range(1, n_moments + 1):
        store = copies / str(n)
        snapshot = take_snapshot(store)
        assert not snapshot.damaged
        run = snapshot.runs[RUN_ID]
        n_segments.add(len(run.segments))
        assert run.is_complete and run_contents(store, RUN_ID) == expected
        if n % 5 == 0:
            verify_run(run)
        compact_run(store, RUN_ID, AT_ONCE)
        after = read_run(store, RUN_ID)
        assert run_contents(store, RUN_ID) == expected and len(after.segments) == 1
        assert table_files(store) == {path for t in TABLES for path in after.files(t.name)}
        assert len(list(after.layout.segments.glob("*.json"))) == 1
        shutil.rmtree(store)
    assert n_segments == {1, 4}


def test_the_command(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = run_contents(store, RUN_ID)
    writer = RunWriter(store, sample_manifest(run_id="text-ffffffffff"))
    writer.begin({})

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli([*arguments, "--store", str(store)])
        out, err = capfd.readouterr()
        return code, out, err

    code, out, err = run("compact")
    assert (code, out) == (0, f"{RUN_ID}: 6 files of 22\n")
    assert "text-ffffffffff: incomplete, and left as it is" in err
    assert run("compact", "text-f")[0] == 3
    code, out, err = run("compact", RUN_ID[:8])
    assert (code, out) == (0, "") and "nothing to do" in err
    assert "0 files deleted" in run("compact", "--sweep")[2]
    assert run_contents(store, RUN_ID) == expected and run("verify")[0] == 0
