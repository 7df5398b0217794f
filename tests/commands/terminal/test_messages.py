"""What is said fits a terminal of 80 columns, word by word."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from moedb.cli import cli
from tests.commands.terminal.pseudo_terminal import on_terminal
from tests.support.stores.samples import write_sample


def test_what_is_said_ends_its_lines_between_words(tmp_path: Path) -> None:
    write_sample(tmp_path / "store")
    names = [f"a_long_name_{i:02d}" for i in range(12)]
    sql = "select " + ", ".join(f"{i} as {name}" for i, name in enumerate(names))
    shown = on_terminal(tmp_path / "store", "sql", sql, err_too=True)
    said = shown.out[shown.out.index("not shown:") :]
    assert all(len(line) <= 80 for line in said.splitlines())
    words = said.replace(",", " ").replace(";", " ").split()
    left_out = [name for name in names if name in words]
    assert left_out and left_out == names[-len(left_out) :]
    piped = on_terminal(tmp_path / "store", "sql", sql).err
    assert " ".join(said.split()) == " ".join(piped.split())
    assert any(len(line) > 80 for line in piped.splitlines())


def test_what_is_to_be_typed_stays_in_one_line(tmp_path: Path) -> None:
    write_sample(tmp_path / "store")
    name = "r" * 100
    shown = on_terminal(tmp_path / "store", "query", "overlap", "--run", name, err_too=True)
    assert shown.code == 2
    hints = [line for line in shown.lines if line.startswith("  ")]
    assert hints and not any(line.endswith(" ") for line in hints)


def groups(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from groups(command, (*path, name))


@pytest.mark.parametrize("path", groups(cli), ids=" ".join)
def test_no_command_is_cut_short_in_the_list(path: tuple[str, ...], tmp_path: Path) -> None:
    shown = on_terminal(tmp_path, *path, "--help")
    listed = shown.out[shown.out.index("Commands:") :]
    assert "..." not in listed and all(len(line) <= 80 for line in listed.splitlines())
