"""Statements and commands of the shell, as they stand in a pipe."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.commands.asking.shell.loop import execute_safely, run_stream
from moedb.commands.asking.shell.session import Session
from moedb.errors import MoedbError, RunNotFoundError, SqlError, SqlRefusedError, UsageError
from tests.support.stores.samples import RUN_ID, write_sample, write_texts

OTHER = "text-other"
_MAIN = "import sys; sys.argv[0] = 'moedb'; from moedb.cli import main; main()"

Type = Callable[..., tuple[str, str]]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    write_sample(tmp_path / "store")
    write_sample(tmp_path / "store", run_id=OTHER, n_units=1)
    with moedb.open(tmp_path / "store") as database:
        yield Session(database)


@pytest.fixture
def typed(
    session: Session, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Type:
    """Run lines; return what went to stdout and to stderr."""
    monkeypatch.chdir(session.database.snapshot.store.parent)

    def run(*lines: str) -> tuple[str, str]:
        run_stream(session, [f"{line}\n" for line in lines])
        out, err = capfd.readouterr()
        return out, err

    return run


def test_statements_are_run_one_after_the_other(typed: Type) -> None:
    out, err = typed("select 1", "as one; select 'a;b' as two;", "-- ;", "select 3 as three")
    cells = [word for word in out.split() if set(word) != {"-"}]
    assert cells == ["one", "1", "two", "a;b", "three", "3"]
    assert err == "from no run; moedb 0.1.0\n"  # once, as it is the same for all


def test_where_rows_are_from_is_said_when_it_changes(typed: Type) -> None:
    count = f"select count(*) from tokens where run_id = '{OTHER}';"
    _, err = typed(count, count, "select 1;", count)
    lines = err.splitlines()
    assert [line.split(",")[0][:9] for line in lines] == ["model han", "from no r", "model han"]
    _, err = typed("select count(*) from tokens;")
    assert "reads the tables of 2 runs together; for one of them: .run RUN, or where" in err


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("table", "  a  b\n---  ---\n  1  x|y\n  2\n"),
        ("csv", "a,b\n1,x|y\n2,\n"),
        ("markdown", "x\\|y"),
        ("latex", "\\begin{tab"),
        ("json", '[{"a": 1, "b": "x|y"},\n {"a": 2, "b": null}]\n'),
        ("line", "a = 1\nb = x|y\n\na = 2\nb = \n"),
    ],
)
def test_modes(typed: Type, mode: str, expected: str) -> None:
    rows = "select 1 as a, 'x|y' as b union all select 2, null order by a;"
    out, _ = typed(f".mode {mode}", rows)
    assert out.replace("\r", "") == expected or (mode in ("markdown", "latex") and expected in out)
    assert typed(".mode")[0] == f"{mode}\n"


def test_a_run_is_chosen(typed: Type) -> None:
    count = "select count(*) as n from tokens;"
    assert typed(count)[0].split()[-1] == "20"
    assert typed(".run text-o", count)[0].split()[-1] == "5"
    out, err = typed(".run")
    assert RUN_ID in out and OTHER in out and f"tables and views hold {OTHER}" in err
    assert typed("select $run as chosen;")[0].split()[-1] == OTHER
    assert typed(".run all", count)[0].split()[-1] == "20"


def test_what_there_is_is_listed(typed: Type) -> None:
    out, _ = typed(".tables")
    assert "routing " in out and "expert_usage" in out and "expert_frequency" not in out
    out, err = typed(".schema routing")
    assert "output_norm" in out and "table routing: one row is" in err
    assert "array_row" in typed(".schema expert_output")[0]
    assert "expert_output(run_id, layer, array_row, rank)" in typed(".schema")[0]
    out, _ = typed(".queries")
    assert "expert-frequency" in out and "logit-lens" in out
    out, _ = typed(".help")
    assert all(len(line) < 80 for line in out.splitlines()) and ".timing" in out


def test_questions_are_asked_by_name_too(typed: Type, session: Session) -> None:
    out, _ = typed(".mode csv", ".query router-confidence run=text-o")
    expected = session.database.query("router-confidence", run=OTHER).fetchall()
    assert len(out.splitlines()) == 1 + len(expected) and str(expected[0][3]) in out
    by_run = typed(f".run {OTHER}", ".query router-confidence")[0]
    assert by_run == out == typed("from router_confidence();")[0]


def test_rows_and_figures_go_to_files(typed: Type) -> None:
    _, err = typed("select layer, count(*) as n from routing group by all order by all;")
    _, err = typed(".export rows.csv", f".run {RUN_ID}", ".plot router-confidence bits.svg")
    assert Path("rows.csv").read_text() == "layer,n\n1,40\n3,40\n"
    told = json.loads(Path("rows.csv.provenance.json").read_text())
    assert [run["run_id"] for run in told["runs"]] == [RUN_ID, OTHER]
    assert Path("bits.svg").read_text().startswith("<?xml")
    assert err.splitlines() == [
        "wrote rows.csv",
        "wrote rows.csv.provenance.json",
        "wrote bits.svg",
        "wrote bits.svg.provenance.json",
    ]


def test_timing(typed: Type) -> None:
    assert typed("select 1;")[1].count(" s\n") == 0
    assert typed(".timing on", "select 1;")[1].splitlines()[-1].endswith(" s")
    assert typed(".timing off", "select 1;")[1].splitlines() == ["timing is off"]


def test_quit_ends_it(typed: Type) -> None:
    out, _ = typed("select 1 as one;", ".quit", "select 2 as two;")
    assert out.split()[0] == "one" and "two" not in out


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("select x;", SqlError, "x"),
        ("select 'open", SqlError, "unterminated|syntax error"),  # the latter before DuckDB 1.5
        ("create table t as select 1;", SqlRefusedError, "a store is only read"),
        ("from read_csv('/etc/passwd');", SqlRefusedError, "outside the store"),
        (".nosuch", UsageError, "there is no command .nosuch"),
        (".mode xml", UsageError, "there is no mode 'xml'"),
        (".run nosuch", RunNotFoundError, "no run named 'nosuch'"),
        (".run a b", UsageError, "one word is expected, not 2"),
        (".schema nosuch", UsageError, "no table, view, macro, function or array named"),
        (".export", UsageError, "one word is expected, not 0"),
        (".export x.csv", UsageError, "no rows to export yet"),
        (".plot overlap", UsageError, "a query and a file"),
        (".plot nosuch x.pdf", UsageError, "no figure of 'nosuch'"),
        (".query", UsageError, "which query"),
        (".query load-balance layer", UsageError, "'layer' is no KEY=VALUE"),
        (".timing 3", UsageError, "on or off, not '3'"),
        (".schema 'x", UsageError, "cannot read"),
    ],
)
def test_what_is_wrong_is_said(
    typed: Type,
    session: Session,
    line: str,
    error: type[MoedbError],
    said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(error, match=said):
        typed(line, "select 'after' as x;")
    execute_safely(session, line)  # on a terminal nothing ends
    execute_safely(session, "select 'after' as x;")
    out, err = capfd.readouterr()
    assert "after" in out and "Error: " in err


def test_a_pipe_is_run_up_to_its_first_error(session: Session) -> None:
    store = str(session.database.snapshot.store)

    def piped(text: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", _MAIN, "shell", "--store", store, "--mode", "csv"]
        return subprocess.run(command, input=text, capture_output=True, text=True)

    done = piped("select 1 as a;\n.run text-o\nselect count(*) as n from tokens")
    assert (done.returncode, done.stdout) == (0, "a\n1\nn\n5\n"), done.stderr
    done = piped("select 1 as a; select nosuch; select 2 as b;")
    assert (done.returncode, done.stdout) == (2, "a\n1\n")
    assert "Error: Binder Error" in done.stderr and "Traceback" not in done.stderr
    assert piped("").returncode == 0


def test_a_pipe_needs_no_prompt(
    session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"import sys; sys.modules['prompt_toolkit'] = None; {_MAIN}"
    store = str(session.database.snapshot.store)
    command = [sys.executable, "-c", code, "shell", "--store", store]
    done = subprocess.run(command, input="select 7 as n;", capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "7"), done.stderr


def test_sql_without_a_statement_and_a_terminal_says_what_to_do(
    session: Session, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["sql", "--store", str(session.database.snapshot.store)]) == 2
    assert "moedb shell asks" in capfd.readouterr().err


def test_hostile_texts_are_shown_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_texts(tmp_path / "store", ["a\x1b[31mred", "b\u202ec"], tokenize=lambda text: [text])
    with moedb.open(tmp_path / "store") as database:
        for mode in ("table", "line", "markdown", "latex"):
            run_stream(Session(database, mode=mode), ["select token from tokens order by 1;\n"])
            out, _ = capfd.readouterr()
            assert "\x1b" not in out and "\u202e" not in out and "x1b" in out, mode
