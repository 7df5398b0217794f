"""Servers that fail, keys that are not taken, and that no secret is ever said."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreError
from tests.support.servers.s3_buckets import KEY, SECRET, Bucket
from tests.support.stores.samples import RUN_ID, write_sample

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def url(tmp_path: Path, bucket: Bucket) -> str:
    write_sample(tmp_path / "store", n_units=2)
    return bucket.put(tmp_path / "store")


def test_a_server_that_is_busy_for_a_moment_is_asked_again(url: str, bucket: Bucket) -> None:
    bucket.server.fail(fail=3)
    with moedb.open(url) as db:
        bucket.server.fail(fail=3)
        assert db.sql("select count(*) from routing").fetchall() == [(40,)]
        bucket.server.fail(fail=2)
        assert db.array(RUN_ID, "router_logits", layer=1)[:1].shape == (1, 4)


def test_a_server_that_stays_busy_is_an_error(
    url: str, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.server.fail(fail=10_000)
    code, out, err = run("runs", "--store", url)
    assert (code, out) == (3, "") and f"{url} cannot be reached" in err
    assert "not an error that moedb expects" not in err


def test_a_table_that_cannot_be_read_is_an_error(
    url: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with moedb.open(url) as db:
        bucket.server.fail(fail=10_000)
        with pytest.raises(StoreError, match="cannot be reached"):
            db.sql("select * from routing").fetchall()


def test_slow_answers_are_waited_for(url: str, bucket: Bucket) -> None:
    bucket.server.fail(seconds=0.3)
    with moedb.open(url) as db:
        assert db.sql("select count(*) from tokens").fetchall() == [(10,)]


def test_a_server_that_is_not_there_is_an_error(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    code, out, err = run("runs", "--store", url)
    assert (code, out) == (3, "") and f"{url} cannot be reached" in err and "AWS_..." in err
    assert time.monotonic() - started < 120


def test_no_keys_at_all_is_an_error(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(Path("/nonexistent")))
    code, _, err = run("runs", "--store", url)
    assert code == 3 and "cannot be reached" in err and "AWS_..." in err


def test_no_secret_is_said(url: str, bucket: Bucket, tmp_path: Path) -> None:
    """With -v, in a process of its own, whatever works and whatever fails."""
    environment = {**os.environ, "HOME": str(tmp_path)}

    def call(*arguments: str, **changes: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from moedb.cli import main; main()", "-v", *arguments],
            env={**environment, **changes},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.stdout + done.stderr

    said = call("runs", "--store", url)
    assert RUN_ID in said
    table = ("export", "expert-frequency", "--store", url, "-o")
    said += call(*table, "table.tex") + call(*table, "table.csv") + call(*table, "table.parquet")
    for path in tmp_path.glob("table.*"):
        said += path.read_bytes().decode(errors="replace")
    assert "expert-frequency" in said and list(tmp_path.glob("table*.json"))
    said += call("runs", "--store", f"s3://{KEY}:{SECRET}@bucket/x")
    said += call("sql", "select 1", "--store", "s3://no-such-bucket-at-all/x")
    with_keys = f"http://{KEY}:{SECRET}@127.0.0.1:9"
    said += call("runs", "--store", url, AWS_ENDPOINT_URL=with_keys, AWS_MAX_ATTEMPTS="1")
    bucket.server.fail(fail=10_000)
    said += call("runs", "--store", url, AWS_MAX_ATTEMPTS="1")
    assert said.count("cannot be reached") >= 2
    assert SECRET not in said and KEY not in said


WRITING = (
    ("capture", "qwen-ioi"),
    ("capture", "cifar-moe"),
    ("capture", "text", "--dataset", "x.txt"),
    ("intervene", "--run", "x", "--kind", "random-routing"),
    ("probe", RUN_ID, "--key", "x"),
    ("label-tokens", RUN_ID, "--name", "x"),
    ("label-experts", RUN_ID, "--endpoint", "http://127.0.0.1:9", "--model", "x"),
    ("name", RUN_ID, "first"),
    ("rm", RUN_ID, "--yes"),
    ("compact", RUN_ID),
    ("migrate", "s3://bucket/x", "new"),
    ("migrate", "old", "s3://bucket/x"),
)


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
def test_what_writes_or_verifies_takes_a_folder(
    command: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEDB_STORE", "s3://bucket/x")
    code, out, err = run(*command)
    assert (code, out) == (2, ""), err
    assert "takes a store in a folder" in err and "moedb copy DIR URL" in err
    assert list(tmp_path.iterdir()) == []
