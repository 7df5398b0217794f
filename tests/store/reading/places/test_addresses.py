"""Addresses of stores: which are taken, and that a key in one is never said again."""

import importlib.util
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.commands.terminal.completion import complete_runs
from moedb.errors import UsageError
from moedb.store.reading.places.file_systems import cannot_reach, checked_url, without_secrets

SECRET = "verySecret/Key+123"  # noqa: S105 - made up

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a b/c=1/", "s3://bucket/a b/c=1"),
        ("gs://bucket/moe/store", "gs://bucket/moe/store"),
        ("abfss://container@account.dfs.core.windows.net/x", None),
        ("hf://datasets/someone/store@main/x", "hf://datasets/someone/store@main/x"),
    ],
)
def test_an_address_is_a_bucket_and_a_plain_path(url: str, address: str | None) -> None:
    assert checked_url(url) == (address or url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///x",
        "s3:/bucket/x",
        "s3://bucket/../other",
        "s3://bucket/x/..",
        "s3://bucket/./x",
        "s3://bucket//x",
        "s3://bucket/*",
        "s3://bucket/[a]",
        "s3://bucket/{a,b}",
        "s3://bucket/x\\y",
        "s3://bucket/x\ny",
        "s3://bucket/ä",
        "file:///tmp/x",
        "http://example.org/x",
        "memory://x",
        "zip::s3://bucket/x",
        "simplecache::s3://bucket/x",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"address of a store|stores are read from") as caught:
        checked_url(url)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"s3://key:{SECRET.replace('/', '_')}@bucket/x",
        f"s3://{SECRET.replace('/', '_')}@bucket/x",
        f"s3:/key:{SECRET}@bucket/x",
        f"s3://bucket/x?secret={SECRET}",
        f"s3://bucket/x#{SECRET}",
        f"S3://key:{SECRET}@bucket",
        f"gs://bucket/x&token={SECRET}",
        f"ftp://key:{SECRET}@host/x",
        f"abfss://key:{SECRET}@account/x",
    ],
)
def test_a_key_in_an_address_is_not_said_again(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ("-v", "runs", "--store", url),
        ("-v", "--store", url, "query", "expert-frequency"),
        ("-v", "verify", "--store", url),
    ):
        code, out, err = run(*arguments)
        assert code == 2 and out == ""
        assert "ecret" not in err.replace("?secret", "") and "Key" not in err.replace("key", "")
    monkeypatch.setenv("MOEDB_STORE", url)
    assert "verySecret" not in run("-v", "runs")[2]


def test_what_may_be_a_key_is_left_out_of_what_a_server_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=x;AccountKey=abc")
    said = ValueError(
        f"no {SECRET} at https://me:{SECRET}@host/x, AccountName=x;AccountKey=abc\nmore"
    )
    error = cannot_reach("s3://bucket/x", said)
    assert error.message == "s3://bucket/x cannot be reached: no ... at https://...@host/x, ..."
    assert without_secrets("nothing to hide at s3://bucket/x@y") == (
        "nothing to hide at s3://bucket/x@y"
    )


def test_a_path_that_was_an_address_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no address of a store"):
        moedb.open(Path("s3://bucket/x"))


@pytest.mark.skipif(importlib.util.find_spec("adlfs") is not None, reason="adlfs is installed")
def test_a_package_that_is_missing_is_named(run: Run) -> None:
    code, out, err = run("runs", "--store", "az://bucket/x")
    assert (code, out) == (2, "") and "pip install 'moedb[azure]'" in err


def test_completion_never_reaches_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    logging.getLogger().setLevel(logging.WARNING)
    context = click.Context(click.Command("query"))
    context.params["store"] = "s3://bucket/x"
    assert complete_runs(context, click.Option(["--run"]), "") == []
    context.params.clear()
    monkeypatch.setenv("MOEDB_STORE", "s3://bucket/x")
    assert complete_runs(context, click.Option(["--run"]), "") == []
