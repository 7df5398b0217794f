"""The commands with --engine spark: a Spark of their own, a Spark Connect server, Ctrl-C."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import psutil
import pytest

from tests.support.servers.spark import QUICK_JAVA, skip_without_spark
from tests.support.stores.samples import RUN_ID, write_texts

_MAIN = "from moedb.cli import main; main()"
_QUICK = {"PYSPARK_SUBMIT_ARGS": f"--driver-java-options '{QUICK_JAVA}' pyspark-shell"}
ENDLESS = (
    "select count(*) from routing a, routing b, routing c, routing d, routing e, routing f "
    "where a.weight + b.weight + c.weight + d.weight + e.weight * f.weight = 0"
)


def moedb(store: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **_QUICK, "MOEDB_STORE": str(store), **more},
    )


def assert_same_csv(found: str, expected: str) -> None:
    """The same text but for last digits."""
    rows, wanted = list(csv.reader(found.splitlines())), list(csv.reader(expected.splitlines()))
    assert rows[0] == wanted[0] and len(rows) == len(wanted)
    for cell, value in zip(chain(*rows), chain(*wanted), strict=True):
        assert cell == value or math.isclose(float(cell), float(value), rel_tol=1e-9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("commands") / "store"
    write_texts(store, ["One more, two more, 3 more.", 'And "none" is 100 % left.'])
    return store


def test_a_spark_of_the_command(store: Path, tmp_path: Path) -> None:
    skip_without_spark()
    asked = ("query", "concentration", "--format", "csv", "--where", "n_top = 2")
    plain = moedb(store, *asked)
    spark = moedb(store, *asked, "--engine", "spark", "--master", "local[1]", "--verify", "data")
    assert spark.returncode == 0, spark.stderr
    assert_same_csv(spark.stdout, plain.stdout)
    assert len(spark.stdout.splitlines()) == 2
    # what Spark and Java say when they start is not among it
    (footer,) = spark.stderr.splitlines()
    assert footer == plain.stderr.strip().replace("; moedb ", "; on Spark (local[1]); moedb ")


def test_files_and_figures(store: Path, tmp_path: Path) -> None:
    skip_without_spark()
    engine = ("--engine", "spark", "--master", "local[1]")
    done = moedb(store, "export", "concentration", "-o", str(tmp_path / "t.csv"), *engine)
    assert done.returncode == 0, done.stderr
    sidecar = json.loads((tmp_path / "t.csv.provenance.json").read_text())
    assert sidecar["engine"] == "Spark (local[1])"
    figure = tmp_path / "f.pdf"
    done = moedb(store, "plot", "expert-frequency", "-o", str(figure), *engine)
    assert done.returncode == 0, done.stderr
    assert figure.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sql", "select 1", "--master", "local"), "add --engine spark"),
        (("sql", "select 1", "--remote", "sc://h"), "add --engine spark"),
        (("sql", "select 1", "--engine", "spark", "--remote", "h"), "sc://HOST:15002"),
        (("query", "kmeans-baseline", "--engine", "spark"), "without --engine spark"),
    ],
)
def test_options_that_do_not_fit(arguments: tuple[str, ...], said: str, store: Path) -> None:
    done = moedb(store, *arguments)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def test_spark_s_sql_is_shown_without_spark(store: Path) -> None:
    asked = ("query", "routing-by-class", "-p", "key", "role", "--engine", "spark", "--show-sql")
    done = moedb(store, *asked)
    assert done.returncode == 0, done.stderr
    assert "CAST('role' AS STRING)" in done.stdout and done.stdout.endswith(";\n")


@pytest.mark.skipif(find_spec("pyspark") is not None, reason="pyspark is installed")
def test_what_is_missing_is_named(store: Path) -> None:
    done = moedb(store, "sql", "select count(*) from routing", "--engine", "spark")
    assert done.returncode == 2
    assert "needs pyspark, which is not installed\n  pip install 'moedb[spark]'" in done.stderr


def test_without_java_it_says_so(store: Path, tmp_path: Path) -> None:
    skip_without_spark()
    found = {"PATH": os.pathsep.join(["/usr/sbin", str(tmp_path)]), "JAVA_HOME": "/nowhere"}
    done = moedb(store, "sql", "select count(*) from routing", "--engine", "spark", **found)
    assert done.returncode == 2, done.stderr
    assert "Spark at its default master cannot be started" in done.stderr
    assert "needs Java 17" in done.stderr and "Traceback" not in done.stderr


_INTERRUPTED = """
import os, signal, sys, threading, time
import psutil

signal.signal(signal.SIGINT, signal.default_int_handler)
stamp = sys.argv.pop(1)

def waits_for_rows():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code.co_name != "toArrow":
        frame = frame.f_back
    return frame is not None

def stop():
    while not waits_for_rows():
        time.sleep(0.2)
    time.sleep(3)
    with open(stamp, "w") as file:
        file.write(" ".join(str(c.pid) for c in psutil.Process().children(recursive=True)))
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop, daemon=True).start()
"""


def test_ctrl_c_stops_spark(store: Path, tmp_path: Path) -> None:
    skip_without_spark()
    stamp = tmp_path / "stamp"
    asked = ("sql", ENDLESS, "--engine", "spark", "--master", "local[1]")
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED + _MAIN, str(stamp), *asked],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **_QUICK, "MOEDB_STORE": str(store)},
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    pids = [int(pid) for pid in stamp.read_text().split()]
    assert pids
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 60)
    assert not alive


_SERVER = """
import sys
from pyspark.sql import SparkSession

builder = SparkSession.builder.master("local[1]")
for given in sys.argv[1:]:
    builder = builder.config(*given.split("="))
builder.getOrCreate()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Spark Connect server on this machine."""
    skip_without_spark("grpc", "grpc_status")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
        "spark.ui.enabled": "false",
    }
    with (tmp_path_factory.mktemp("server") / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *(f"{k}={v}" for k, v in settings.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **_QUICK},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"sc://127.0.0.1:{port}"
        process.communicate("")


@pytest.mark.parametrize(
    "asked",
    [
        ("query", "expert-frequency"),
        ("query", "co-activation"),
        ("sql", "from expert_frequency() where n_decisions > $n order by all", "-p", "n", "2"),
        ("sql", "select run_id, count(*), count(*) as n from routing group by all"),
        ("sql", "select * from token_labels"),
    ],
)
def test_spark_connect(asked: tuple[str, ...], server: str, store: Path) -> None:
    plain = moedb(store, *asked, "--format", "csv")
    spark = moedb(store, *asked, "--format", "csv", "--engine", "spark", "--remote", server)
    assert spark.returncode == plain.returncode, spark.stderr
    assert_same_csv(spark.stdout, plain.stdout)
    assert f"; on Spark ({server}); moedb" in spark.stderr
    assert len(spark.stderr.splitlines()) == len(plain.stderr.splitlines())


def test_what_an_address_says_besides_stays_secret(
    server: str, store: Path, tmp_path: Path
) -> None:
    address = f"{server}/;user_id=geheim;x-key=s3cret"
    remote = ("--engine", "spark", "--remote", address)
    out = tmp_path / "t.csv"
    done = moedb(store, "-v", "export", "concentration", "-r", RUN_ID, "-o", str(out), *remote)
    assert done.returncode == 0, done.stderr
    written = out.read_text() + Path(f"{out}.provenance.json").read_text()
    assert f"Spark ({server})" in written
    failed = moedb(store, "-v", "sql", "select cast(token as int) from tokens", *remote)
    assert failed.returncode == 2 and "CAST_INVALID_INPUT" in failed.stderr
    nowhere = "sc://127.0.0.1:1/;token=s3cret;user_id=geheim"
    lost = moedb(store, "-v", "sql", "select max(layer) from routing", *remote[:-1], nowhere)
    assert lost.returncode == 2, lost.stderr
    assert "Spark at sc://127.0.0.1:1 cannot be" in lost.stderr
    for text in (written, done.stderr, failed.stderr, lost.stderr):
        assert "s3cret" not in text and "geheim" not in text
