"""Ctrl-C while a query runs, or its rows are fetched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.stores.samples import write_sample

# Sends itself the signal once one query has run for a while; a machine may be slow to get there.
_CODE = """
import os, signal, sys, threading, time

signal.signal(signal.SIGINT, signal.default_int_handler)
stamp = sys.argv.pop(1)

def running():
    return {thread for thread in threading.enumerate() if thread.name == "moedb-query"}

def stop():
    while True:
        before = running()
        time.sleep(0.7)
        # rows that are written as they come are fetched a batch at a time
        streams = "csv" in sys.argv and before and running()
        if before & running() or streams:
            break
    with open(stamp, "w") as file:
        file.write(str(time.time()))
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop, daemon=True).start()
"""
_MAIN = "from moedb.cli import main; main()"

ENDLESS = "select count(*) from range(1000000) a(i), range(1000000) b(i) where hash(a.i + b.i) = 3"
MANY = "select i, i::varchar as text, i / 3 as third from range(20000000) t(i)"


def interrupted(
    tmp_path: Path, code: str, *arguments: str
) -> tuple["subprocess.CompletedProcess[str]", float]:
    """Run a program that interrupts itself; return it, and the seconds that it took to end."""
    stamp = tmp_path / "stamp"
    done = subprocess.run(
        [sys.executable, "-c", _CODE + code, str(stamp), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        env={**os.environ, "MOEDB_STORE": str(tmp_path / "store"), "TMPDIR": str(tmp_path / "tmp")},
    )
    return done, time.time() - float(stamp.read_text())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    write_sample(tmp_path / "store")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("sql", ENDLESS),
        ("sql", ENDLESS.replace("3", "$n::bigint"), "-p", "n", "3"),
        ("sql", f"explain analyze {ENDLESS}"),
        ("sql", MANY, "--format", "csv"),
        ("export", "--sql", ENDLESS, "-o", "NEVER.parquet"),
    ],
)
def test_a_query_stops_at_once(store: Path, arguments: tuple[str, ...]) -> None:
    never = store / "never.parquet"
    given = [str(never) if each == "NEVER.parquet" else each for each in arguments]
    done, seconds = interrupted(store, _MAIN, *given)
    assert done.returncode == 130, done.stderr
    assert "interrupted; " in done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 5  # about one where nothing else runs
    assert list((store / "tmp").iterdir()) == []
    assert not never.exists()


@pytest.mark.parametrize("method", ["fetchall", "df", "arrow"])
def test_python_gets_the_interrupt_and_can_go_on(store: Path, method: str) -> None:
    code = f"""
import moedb
database = moedb.open()
try:
    database.sql({ENDLESS!r}).{method}()
except KeyboardInterrupt:
    assert database.sql("select 42").fetchall() == [(42,)]
    sys.exit(7)
"""
    done, seconds = interrupted(store, code)
    assert done.returncode == 7, done.stderr
    assert seconds < 5
