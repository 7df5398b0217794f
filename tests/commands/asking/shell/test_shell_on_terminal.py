"""The shell as it is used: on a terminal."""

import stat
import time
from pathlib import Path

import pytest

from tests.commands.asking.shell.conversing import (
    CTRL_C,
    CTRL_D,
    ENTER,
    MAIN,
    TAB,
    UP,
    talking_to,
)
from tests.support.stores.samples import RUN_ID, write_sample, write_texts

ENDLESS = "select count(*) from range(1000000) a(i), range(1000000) b(i) where hash(a.i + b.i) = 3;"
PROMPT = "moedb>"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store")
    return tmp_path / "store"


def test_statements_errors_and_the_end(store: Path, tmp_path: Path) -> None:
    with talking_to(store, tmp_path / "state", "shell") as shell:
        first = shell.expect(PROMPT)
        # a path that is long takes lines of its own
        assert f"{store},1run." in "".join(first.split()) and ".help" in first
        shell.type("select layer, count(*) as n", ENTER, "from routing group by all;", ENTER)
        shell.expect("    1  30\n    3  30\n")
        shell.expect(f"run {RUN_ID}, 3")
        shell.expect(PROMPT)
        shell.type("select nosuch;", ENTER)
        shell.expect('Error: Binder Error: Referenced column "nosuch"')
        shell.expect(PROMPT)
        shell.type("create table t as select 1;", ENTER)
        shell.expect("a store is only read")
        shell.expect(PROMPT)
        shell.type(".nosuch", ENTER)
        shell.expect("there is no command .nosuch")
        shell.expect(PROMPT)
        shell.type(".run text", ENTER)
        shell.expect(f"moedb {RUN_ID}>")
        shell.type("select i from range(200) t(i);", ENTER)
        shell.expect("100 of 200 rows; .export FILE has all")
        shell.expect(f"moedb {RUN_ID}>")
        shell.type(CTRL_D)
        assert shell.end() == 0
        assert "Traceback" not in shell.shown


def test_ctrl_c_stops_what_runs_and_no_more(store: Path, tmp_path: Path) -> None:
    with talking_to(store, tmp_path / "state", "shell") as shell:
        shell.expect(PROMPT)
        shell.type("select half a stateme", CTRL_C)
        shell.expect(PROMPT)
        shell.type(ENDLESS, ENTER)
        time.sleep(3)  # it would run for hours; a busy machine takes a while to begin
        shell.type(CTRL_C)
        shell.expect("interrupted\n")
        shell.expect(PROMPT)
        shell.type("select 6 * 7 as answer;", ENTER)
        shell.expect("answer\n------\n    42\n")
        shell.expect(PROMPT)
        shell.type(".quit", ENTER)
        assert shell.end() == 0


def test_what_was_typed_is_kept_for_its_user_alone(store: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with talking_to(store, state, "shell") as shell:
        shell.expect(PROMPT)
        shell.type("select 11 * 11 as kept;", ENTER)
        shell.expect(" 121\n")
        shell.expect(PROMPT)
        shell.type(CTRL_D)
        assert shell.end() == 0
    file = state / "moedb" / "history"
    assert "select 11 * 11 as kept;" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with talking_to(store, state, "shell") as shell:
        shell.expect(PROMPT)
        shell.type(UP, ENTER)
        shell.expect(" 121\n")
        shell.expect(PROMPT)
        shell.type(CTRL_D)
        assert shell.end() == 0


def test_a_history_that_cannot_be_kept_is_said(store: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file, and no folder")
    with talking_to(store, state, "shell") as shell:
        shell.expect("what is typed is not kept")
        shell.expect(PROMPT)
        shell.type("select 42 as answer;", ENTER)
        shell.expect(" 42\n")
        shell.expect("moedb")
        shell.expect(">")
        shell.type(CTRL_D)
        assert shell.end() == 0


def test_tab_completes(store: Path, tmp_path: Path) -> None:
    with talking_to(store, tmp_path / "state", "shell") as shell:
        shell.expect(PROMPT)
        shell.type("from routi", TAB)
        shell.expect("routing_by_class(")  # several are shown, with what they are
        shell.expect("macro")
        shell.type(CTRL_C)
        shell.expect(PROMPT)
        shell.type("select distinct wei", TAB)
        shell.expect("ght")
        shell.type(" > 0 as ok from routing;", ENTER)
        shell.expect("true\n")
        shell.expect(PROMPT)
        shell.type("select job from runs where run_id = 'te", TAB)
        shell.expect("456789'")
        shell.type(";", ENTER)
        shell.expect("---\ntext\n")
        shell.expect(PROMPT)
        shell.type(CTRL_D)
        assert shell.end() == 0


def test_hostile_names_do_not_act_on_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[31mred"
    store = tmp_path / "store"
    write_texts(store, [evil], tokenize=lambda text: [text], example_labels={evil: evil})
    with talking_to(store, tmp_path / "state", "shell") as shell:
        shell.expect(PROMPT)
        shell.type("select token from tokens;", ENTER)
        shell.expect("\\x1b[31mred")
        shell.expect(PROMPT)
        shell.type("from routing_by_class(key := '", TAB)
        shell.expect("red")
        shell.type(CTRL_C)
        shell.expect(PROMPT)
        shell.type("from routing_by_class(key := 'none');", ENTER)
        shell.expect("Error: ")
        shell.expect(PROMPT)
        shell.type(CTRL_D)
        assert shell.end() == 0
        assert evil.encode() not in shell.raw


def test_sql_without_a_statement_is_the_shell(store: Path, tmp_path: Path) -> None:
    with talking_to(store, tmp_path / "state", "sql", "--run", "text") as shell:
        shell.expect(f"moedb {RUN_ID}>")
        shell.type("select 42 as answer;", ENTER)
        shell.expect(" 42\n")
        shell.expect("moedb")
        shell.expect(">")
        shell.type(CTRL_D)
        assert shell.end() == 0
    with talking_to(store, tmp_path / "state", "sql", "--format", "csv") as shell:
        shell.expect("give the SQL as an argument")
        assert shell.end() == 2


def test_without_the_packages_it_says_what_to_install(store: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['prompt_toolkit'] = None; {MAIN}"
    with talking_to(store, tmp_path / "state", "shell", code=code) as shell:
        shell.expect("the shell needs prompt_toolkit")
        shell.expect("pip install 'moedb[shell]'")
        assert shell.end() == 2
