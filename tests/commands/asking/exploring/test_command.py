"""The command: what it needs, and what it refuses."""

import socket
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from moedb.cli import run_cli


def test_without_its_packages_the_error_says_what_to_install(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = util.find_spec

    def lacking(name: str, *given: Any) -> Any:
        return None if name == "uvicorn" else found(name, *given)

    monkeypatch.setattr("moedb.commands.asking.exploring.command.find_spec", lacking)
    assert run_cli(["explore", "--store", str(store)]) == 2
    err = capsys.readouterr().err
    assert "needs uvicorn," in err and "pip install 'moedb[explore]'" in err


def test_what_serves_is_imported_where_it_is_used() -> None:
    code = (
        "import sys, moedb.cli; from moedb.commands.asking.exploring import command;"
        "print({'starlette', 'uvicorn', 'webbrowser'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_a_port_that_is_taken_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_cli(["explore", "--no-ci", "--store", str(store), "--port", port]) == 2
    err = capsys.readouterr().err
    assert f"port {port}" in err and "--port" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--port", "0"], 2, "1<=x<=65535"),
        (["--port", "70000"], 2, "1<=x<=65535"),
        (["--seconds", "0"], 2, "0.1"),
        (["absent"], 2, "absent"),
        (["--no-ci", "--samples", "9"], 2, "--no-ci leaves them out"),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    store: Path,
    arguments: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["explore", *arguments, "--store", str(store)]) == code
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == ""


def test_a_store_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["explore", "--store", str(tmp_path / "absent")]) == 3
    assert "absent" in capsys.readouterr().err
