"""What bash is offered after TAB, asked as bash asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moedb.schemas.run_names import RunName
from moedb.store.writing.naming import name_run
from tests.support.stores.samples import RUN_ID, write_sample


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion") / "store"
    write_sample(folder)
    name_run(folder, RUN_ID, RunName("numbers"))
    return folder


def offered(store: Path, line: str) -> list[str]:
    """What is offered for the last word of a line, which may be empty."""
    done = subprocess.run(
        [sys.executable, "-c", "from moedb.cli import main; main()"],
        env={
            **os.environ,
            "MOEDB_STORE": str(store),
            "_MOEDB_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("moedb query co-a", ["co-activation", "co-activation-adjacent"]),
        ("moedb plot output", ["output-overlap"]),
        ("moedb query expert-frequency --run te", [RUN_ID]),
        ("moedb show n", ["numbers"]),
        ("moedb sql --run num", ["numbers"]),
        ("moedb query routing-by-class -p k", ["key"]),
        ("moedb query routing-by-class -p key n", ["name"]),
        ("moedb query top-tokens -p by ", ["count", "lift"]),
        ("moedb query co-activation -p layer ", ["1", "3"]),
        ("moedb query saturation -p run_b num", ["numbers"]),
        ("moedb query no-such-query -p k", []),
    ],
)
def test_names_are_offered(store: Path, line: str, expected: list[str]) -> None:
    assert offered(store, line) == expected


def test_without_a_store_nothing_is_said(tmp_path: Path) -> None:
    assert offered(tmp_path / "none", "moedb show ") == []
    assert "expert-frequency" in offered(tmp_path / "none", "moedb query expert-")
