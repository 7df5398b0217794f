"""Where statements end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.commands.asking.shell.statements import (
    has_sql,
    is_dot_command,
    is_finished,
    split_statements,
)


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("", [], ""),
        ("select 1", [], "select 1"),
        ("select 1;", ["select 1"], ""),
        ("select 1; select 2;\n select 3", ["select 1", "select 2"], "\n select 3"),
        ("select ';' as \"a;b\"; x", ["select ';' as \"a;b\""], " x"),
        ("select 'it''s; so';", ["select 'it''s; so'"], ""),
        ("select 1 -- one; two\n;", ["select 1 -- one; two"], ""),
        ("/* a; b */ select 1;", ["/* a; b */ select 1"], ""),
        ("select $$;$$; select $t$ ; $t$;", ["select $$;$$", "select $t$ ; $t$"], ""),
        ("select 'é猫;'; select 'ü';", ["select 'é猫;'", "select 'ü'"], ""),
        (";; -- nothing\n; select 1;", ["select 1"], ""),
        ("select 'open; select 2;", [], "select 'open; select 2;"),
    ],
)
def test_a_semicolon_ends_a_statement(text: str, statements: list[str], rest: str) -> None:
    assert split_statements(text) == (statements, rest)


PIECES = ("select 1", "'a;b'", '"c;d"', "-- e;\n", "/* f; */", " ", "\n", "é", "x + 2", "''")


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=5), max_size=4))
def test_what_is_put_together_comes_apart(parts: list[list[str]]) -> None:
    texts = [" ".join(pieces) for pieces in parts]
    found, rest = split_statements("".join(f"{text}\n;" for text in texts))
    assert found == [text.strip() for text in texts if has_sql(text)]
    assert rest == ""


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("", True),
        ("  ", True),
        (";", True),
        ("select 1", False),
        ("select 1;", True),
        ("select 1; -- done", True),
        ("select 1; select 2", False),
        ("select ';", False),
        ("-- only a comment", False),
        (".tables", True),
        ("  .mode csv", True),
        (".5", False),
    ],
)
def test_when_enter_runs_what_is_typed(text: str, finished: bool) -> None:
    assert is_finished(text) is finished


def test_dot_commands_are_told_from_sql() -> None:
    assert is_dot_command(" .help") and not is_dot_command("select .5") and not is_dot_command(".")
