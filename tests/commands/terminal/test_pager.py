"""Long tables go through a pager, which may be quit at any time."""

import shlex
import sys
from pathlib import Path

import pytest

from moedb.commands.terminal.pager import find_pager
from tests.commands.terminal.pseudo_terminal import on_terminal
from tests.support.stores.samples import write_sample

MANY = "select i from range(50000) t(i)"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pager") / "store"
    write_sample(folder)
    return folder


def pager(tmp_path: Path, code: str) -> str:
    script = tmp_path / "pager.py"
    script.write_text(f"import os, sys\n{code}\n")
    return shlex.join([sys.executable, str(script), str(tmp_path / "seen")])


KEEP = "open(sys.argv[1], 'w').write(sys.stdin.read()); print('paged')"


def test_a_long_table_is_paged_and_a_short_one_is_not(store: Path, tmp_path: Path) -> None:
    variables = {"MOEDB_PAGER": pager(tmp_path, KEEP)}
    shown = on_terminal(store, "sql", MANY, variables=variables)
    assert shown.lines == ["paged"]
    seen = (tmp_path / "seen").read_text().split()
    assert seen[2:] == [str(i) for i in range(10_000)]
    assert "10,000 of 50,000 rows" in shown.err
    (tmp_path / "seen").unlink()
    fits = on_terminal(store, "sql", f"{MANY} limit 21", lines=24, variables=variables)
    assert len(fits.lines) == 23 and not (tmp_path / "seen").exists()
    # the 24th line would push the first off the screen, as the prompt has one
    longer = on_terminal(store, "sql", f"{MANY} limit 22", lines=24, variables=variables)
    assert longer.lines == ["paged"]


def test_no_pager(store: Path, tmp_path: Path) -> None:
    variables = {"MOEDB_PAGER": pager(tmp_path, KEEP)}
    shown = on_terminal(store, "sql", MANY, "--no-pager", variables=variables)
    assert len(shown.lines) == 102 and not (tmp_path / "seen").exists()


@pytest.mark.parametrize(
    "code",
    ["sys.stdin.readline()", "sys.exit(3)", "sys.stdin.close(); os.kill(os.getpid(), 9)"],
)
def test_quitting_early_is_no_error(store: Path, tmp_path: Path, code: str) -> None:
    shown = on_terminal(store, "sql", MANY, variables={"MOEDB_PAGER": pager(tmp_path, code)})
    assert shown.code == 0
    assert "Error" not in shown.err and "10,000 of 50,000 rows" in shown.err


def test_less_is_quit_by_q(store: Path) -> None:
    if find_pager({"TERM": "xterm", "PATH": "/usr/bin:/bin"}) is None:
        pytest.skip("less is not installed")
    shown = on_terminal(
        store, "sql", MANY, keys="q", after="20\n", variables={"MOEDB_PAGER": "less -FRSX"}
    )
    assert shown.code == 0 and "10,000 of 50,000 rows" in shown.err


def test_which_pager() -> None:
    path = {"PATH": "/usr/bin:/bin", "TERM": "xterm"}
    assert find_pager({**path, "PAGER": "sort -r", "MOEDB_PAGER": "head -n 3"}) == [
        "head",
        "-n",
        "3",
    ]
    assert find_pager({**path, "PAGER": "sort -r"}) == ["sort", "-r"]
    for nothing in ({"MOEDB_PAGER": "", "PAGER": "sort"}, {"PAGER": "cat"}, {"TERM": "dumb"}):
        assert find_pager({**path, **nothing}) is None


def test_a_pager_that_is_not_there_is_named(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = on_terminal(store, "sql", MANY, variables={"MOEDB_PAGER": "no-such-pager -x"})
    assert len(shown.lines) == 102
    assert "the pager 'no-such-pager -x' of MOEDB_PAGER is not there" in shown.err
