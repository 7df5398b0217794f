"""One damaged run: it is named, and every other one answers as before."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreDamagedError
from moedb.schemas.seals import seal
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from tests.support.stores.samples import RUN_ID, sample_manifest, write_sample

OLD, NEW = RUN_ID, "text-ffffffffff"


def first_file(layout: RunLayout, table: str) -> Path:
    return take_snapshot(layout.store).runs[layout.run_id].files(table)[0]


def garbled(path: Path, start: int, end: int | None) -> None:
    content = bytearray(path.read_bytes())
    content[start:end] = bytes(byte ^ 0x5A for byte in content[start:end])
    path.write_bytes(content)


def footer(layout: RunLayout, table: str) -> tuple[int, int]:
    """Where the first bytes of a file's footer are; its length stands before the last word."""
    content = first_file(layout, table).read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return start + 8, start + 40


def edited(path: Path, **changes: object) -> None:
    """Change what a manifest says, and seal it again."""
    content = {**json.loads(path.read_text()), **changes}
    del content["seal"]
    path.write_text(seal(json.dumps(content, indent=1)))


def without_a_column(layout: RunLayout) -> None:
    """A file of the size and place committed that lacks a column."""
    import pyarrow.parquet as pq

    path = first_file(layout, "tokens")
    size = path.stat().st_size
    pq.write_table(pq.read_table(path).drop_columns(["position"]), path)
    manifest = layout.segment("000000")
    content = json.loads(manifest.read_text())
    (entry,) = content["tables"]["tokens"]
    assert entry["n_bytes"] == size
    entry["n_bytes"] = path.stat().st_size
    edited(manifest, tables=content["tables"])
    # with a head that names it, so that nothing but the file is wrong
    segments = json.loads(layout.head(0).read_text())["segments"]
    (named,) = (entry for entry in segments if entry["path"] == "segments/000000.json")
    named["sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    edited(layout.head(0), segments=segments)


DAMAGE: dict[str, Callable[[RunLayout], object]] = {
    "no configuration": lambda run: run.manifest.unlink(),
    "configuration cut short": lambda run: run.manifest.write_text("{"),
    "configuration of bytes": lambda run: run.manifest.write_bytes(b"\xff\xfe"),
    "configuration is a folder": lambda run: (run.manifest.unlink(), run.manifest.mkdir()),
    "configuration without rows": lambda run: edited(run.manifest, row={}),
    "configuration of another run": lambda run: edited(run.manifest, run_id=OLD),
    "a number too large": lambda run: edited(
        run.manifest, row={**sample_manifest().row, "n_tokens": 2**70}
    ),
    "half a character": lambda run: edited(
        run.manifest, row={**sample_manifest().row, "model": "\ud800"}
    ),
    "nested without end": lambda run: run.manifest.write_text("[" * 200_000),
    "images of no shape": lambda run: edited(run.manifest, arrays={"images": [0]}),
    "layers of nothing": lambda run: edited(run.manifest, layers=[1]),
    "unit's manifest cut short": lambda run: run.segment("000001").write_text('{"unit":'),
    "unit's manifest of another unit": lambda run: edited(run.segment("000001"), unit="000002"),
    "unit's manifest missing": lambda run: run.segment("000001").unlink(),
    "no first segment": lambda run: run.segment("first").unlink(),
    "segments are a file": lambda run: (shutil.rmtree(run.segments), run.segments.write_text("")),
    "table missing": lambda run: first_file(run, "routing").unlink(),
    "table cut short": lambda run: first_file(run, "routing").write_bytes(b"PAR1"),
    "tables gone": lambda run: shutil.rmtree(run.tables),
    "footer's end broken": lambda run: garbled(first_file(run, "routing"), -8, None),
    "footer broken": lambda run: garbled(first_file(run, "tokens"), *footer(run, "tokens")),
    "footer all broken": lambda run: garbled(first_file(run, "examples"), 4, None),
    "column missing": without_a_column,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store", n_units=2, run_id=OLD)
    write_sample(tmp_path / "store", n_units=2, run_id=NEW)
    return tmp_path / "store"


@pytest.mark.parametrize("name", DAMAGE)
def test_the_other_runs_answer_as_before(
    store: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with moedb.open(store) as db:
        expected = db.query("expert-frequency", run=OLD).fetchall()
        counted = db.sql("select count(*) from routing where run_id = $r", {"r": OLD}).fetchall()
        assert db.query("expert-frequency").provenance.parameters["run"] == NEW
    DAMAGE[name](RunLayout(store, NEW))
    caplog.set_level(logging.WARNING)
    with moedb.open(store) as db:
        (warning,) = caplog.records
        assert f"run {NEW}: " in warning.getMessage() and "moedb verify" in warning.getMessage()
        assert f"the default run is {OLD}" in warning.getMessage()
        assert "\n" not in warning.getMessage()
        assert db.query("expert-frequency", run=OLD).fetchall() == expected
        assert db.query("expert-frequency").fetchall() == expected
        assert db.sql("select count(*) from routing").fetchall() == counted
        assert db.array(OLD, "router_logits", layer=1)[:1].shape == (1, 4)
        for ask in (
            lambda: db.query("expert-frequency", run=NEW),
            lambda: db.array(NEW, "router_logits", layer=1),
            lambda: db.snapshot.run("text-f"),
        ):
            with pytest.raises(StoreDamagedError, match=f"run {NEW}: ") as caught:
                ask()
            assert caught.value.exit_code == 3 and f"moedb rm {NEW}" in str(caught.value)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def moedb_cli(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("MOEDB_STORE", str(store))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("name", ["no configuration", "table missing", "footer broken"])
def test_commands_name_the_damaged_run_and_work_on_the_others(
    store: Path, moedb_cli: Run, name: str
) -> None:
    _, before, _ = moedb_cli("query", "expert-frequency", "--run", OLD)
    DAMAGE[name](RunLayout(store, NEW))
    for arguments in (("--run", OLD), ()):
        code, out, err = moedb_cli("query", "expert-frequency", *arguments)
        assert (code, out) == (0, before)
        assert err.count(f"run {NEW}: ") == 1 and "moedb verify" in err
    code, out, err = moedb_cli("sql", "select count(*) from tokens", "--format", "csv")
    assert (code, out.split()[-1]) == (0, "10")
    code, out, err = moedb_cli("query", "expert-frequency", "--run", NEW)
    assert code == 3 and out == "" and f"moedb rm {NEW}" in err
    assert moedb_cli("show", NEW)[0] == 3 and moedb_cli("show", OLD)[0] == 0

    code, out, _ = moedb_cli("runs", "--format", "json")
    listed = {row["run_id"]: row["status"] for row in json.loads(out)}
    assert code == 0 and listed == {OLD: "complete", NEW: "damaged"}

    code, out, err = moedb_cli("verify")
    assert code == 3
    sound, damaged = sorted(out.splitlines())
    assert sound.startswith(f"{OLD}: sound: ")
    assert damaged.startswith(f"{NEW}: damaged: run {NEW}: ")
    assert f"Error: damaged: {NEW}" in err
    assert moedb_cli("verify", OLD)[0] == 0 and moedb_cli("verify", NEW)[0] == 3

    assert moedb_cli("rm", NEW, "--yes")[0] == 0
    code, out, err = moedb_cli("runs", "--format", "json")
    assert [row["run_id"] for row in json.loads(out)] == [OLD]
    assert "damaged" not in err and moedb_cli("verify")[0] == 0


def test_verification_goes_on_after_what_only_it_finds(store: Path, moedb_cli: Run) -> None:
    garbled(first_file(RunLayout(store, OLD), "routing"), 8, 20)
    shard = next(RunLayout(store, NEW).arrays.rglob("c/*/*"))
    shutil.rmtree(shard) if shard.is_dir() else shard.unlink()
    code, out, err = moedb_cli("verify")
    assert code == 3 and f"Error: damaged: {OLD}, {NEW}" in err
    assert "is not what was committed" in out and "is missing" in out
    assert len(out.splitlines()) == 2


def test_with_every_run_damaged_the_store_still_opens(store: Path, moedb_cli: Run) -> None:
    for run in (OLD, NEW):
        RunLayout(store, run).manifest.write_text("")
    code, out, err = moedb_cli("sql", "select count(*) from runs", "--format", "csv")
    assert (code, out.split()[-1]) == (0, "0")
    assert "no other run is complete" in err
    code, out, err = moedb_cli("query", "expert-frequency")
    assert code == 3 and OLD in err and NEW in err


def test_a_run_that_is_being_begun_is_not_damaged(store: Path) -> None:
    layout = RunLayout(store, "text-0000000000")
    layout.segments.mkdir(parents=True)
    (layout.folder / ".commit.lock").touch()
    (layout.folder / ".run.json.1-ab.tmp").write_text("{")
    (store / "runs" / ".deleted-text-1-0123456789abcdef").mkdir()
    (store / "runs" / "notes.txt").touch()
    snapshot = take_snapshot(store)
    assert not snapshot.damaged and set(snapshot.runs) == {OLD, NEW}
