"""Folders that queries spill to: whose they are, and when they go."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moedb.store.engine.spilling import LOCK_NAME, SPILL_PREFIX, sweep_spills

# spills some 100 MB, says so, and waits to be stopped
_SPILLING = """
import signal, sys, time, duckdb
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore them
from moedb.store.engine.spilling import delete_spill_on_signals, spill_folder
delete_spill_on_signals()
folder = spill_folder()
connection = duckdb.connect()
connection.execute("set enable_progress_bar = false")
connection.execute("set threads = 1")
connection.execute("set memory_limit = '60MB'")
connection.execute("set temp_directory = ?", [str(folder)])
connection.execute("create temp table t as select i, hash(i) as h from range(10000000) r(i)")
assert sum(path.stat().st_size for path in folder.iterdir()) > 10_000_000
print(folder, flush=True)
time.sleep(0 if "end" in sys.argv else 600)
"""


def spilling(parent: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SPILLING, *arguments],
        env={**os.environ, "TMPDIR": str(parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the process did not spill"
    return process, Path(line).parent


def end(process: subprocess.Popen[str]) -> int:
    if process.stdout is not None:
        process.stdout.close()
    return process.wait(60)


def test_the_folder_goes_when_the_process_ends(tmp_path: Path) -> None:
    process, _ = spilling(tmp_path, "end")
    assert end(process) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
def test_the_folder_goes_when_the_process_is_asked_to_end(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        process, folder = spilling(tmp_path)
        assert folder.parent == tmp_path and folder.name.startswith(SPILL_PREFIX)
        process.send_signal(number)
        assert end(process) == -number
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    killed, left = spilling(tmp_path)
    killed.kill()
    end(killed)
    assert left.exists()
    living, kept = spilling(tmp_path)  # sweeps as it starts
    assert not left.exists()
    sweep_spills(tmp_path)
    assert kept.exists() and (kept / "0").exists()
    living.kill()
    end(living)
    sweep_spills(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_deletes_nothing_else(tmp_path: Path) -> None:
    parent, outside = tmp_path / "tmp", tmp_path / "outside"
    for folder in (outside / "inner", parent / f"not-{SPILL_PREFIX}x", parent / f"{SPILL_PREFIX}d"):
        folder.mkdir(parents=True)
        (folder / "precious").write_text("kept")
    (outside / LOCK_NAME).touch()
    (parent / f"{SPILL_PREFIX}link").symlink_to(outside)
    (parent / f"{SPILL_PREFIX}file").write_text("kept")
    # no lock of its own, but a link to one
    (parent / f"{SPILL_PREFIX}d" / LOCK_NAME).symlink_to(outside / LOCK_NAME)
    # a dead one that holds a link to elsewhere
    dead = parent / f"{SPILL_PREFIX}dead"
    dead.mkdir()
    (dead / LOCK_NAME).touch()
    (dead / "0").symlink_to(outside / "inner")
    sweep_spills(parent)
    assert not dead.exists()
    assert sorted(path.name for path in parent.iterdir()) == [
        f"{SPILL_PREFIX}d",
        f"{SPILL_PREFIX}file",
        f"{SPILL_PREFIX}link",
        f"not-{SPILL_PREFIX}x",
    ]
    assert (outside / "inner" / "precious").read_text() == "kept"
    assert (parent / f"{SPILL_PREFIX}d" / "precious").read_text() == "kept"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users of Unix")
def test_a_sweep_leaves_the_folders_of_other_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"{SPILL_PREFIX}x"
    theirs.mkdir()
    (theirs / LOCK_NAME).touch()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    sweep_spills(tmp_path)
    assert theirs.exists()
    monkeypatch.undo()
    sweep_spills(tmp_path)
    assert not theirs.exists()


def test_a_store_opens_where_nothing_can_be_spilled(tmp_path: Path) -> None:
    from tests.support.stores.samples import write_sample

    write_sample(tmp_path / "store")
    code = """
import sys, tempfile, moedb
tempfile.tempdir = sys.argv[2]
print(moedb.open(sys.argv[1]).sql("select count(*) from runs").fetchall())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[(1,)]\n"
    assert not (tmp_path / "nowhere").exists()


def test_it_was_not_there_before_it_was_needed(tmp_path: Path) -> None:
    """Importing makes no folder: `moedb --help` leaves nothing behind if it is killed."""
    code = "import time, moedb.cli; print(flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []
    process.kill()
    end(process)
