"""The tables of a page: Markdown, as ``moedb export`` writes it, with its rows to pick cells of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moedb.errors import UsageError, did_you_mean

_CELL = re.compile(r"((?:\\.|[^|\\])*)\|")
_MOST_NAMED = 12
"""Rows that an error lists."""


@dataclass(frozen=True)
class PageTable:
    """A table in Markdown.

    Attributes
    ----------
    name
        What a page calls it.
    text
        The whole of it.
    columns, rows
        Its heads and its cells, as Markdown.
    """

    name: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, name: str, file: Path) -> "PageTable":
        """Read a table.

        Raises
        ------
        UsageError
            If there is no such file.
        """
        if not file.is_file():
            raise UsageError(
                f"there is no {file} of the table {name}",
                f"a step before: moedb export ... -o ${{output}}/{name}.md",
            )
        text = file.read_text(encoding="utf-8").strip()
        lines = [cells_of(line) for line in text.splitlines() if line.startswith("|")]
        # below the heads is a line of dashes
        return cls(name, text, lines[0] if lines else (), tuple(lines[2:]))

    def cell(self, row: str, column: str) -> str:
        """The cell of a row, named by what it begins with, and a column, as Markdown, not bold.

        Parameters
        ----------
        row
            The first cells of the row, as the table shows them, with commas between.
        column
            What stands above the column.

        Raises
        ------
        UsageError
            If no row or several begin so, or there is no such column.
        """
        columns = [shown(each) for each in self.columns]
        if column not in columns:
            raise UsageError(
                f"the table {self.name} has no column {column!r}; {did_you_mean(column, columns)}"
            )
        wanted = tuple(each.strip() for each in row.split(","))
        begun = [tuple(map(shown, cells[: len(wanted)])) for cells in self.rows]
        found = [number for number, cells in enumerate(begun) if cells == wanted]
        if len(found) != 1:
            rows = "no row that begins" if not found else f"{len(found)} rows that begin"
            raise UsageError(
                f"the table {self.name} has {rows} with [{row}]; its rows are {_listed(self.rows)}",
                "as many of the first cells, in order, as tell one row: [a,1]",
            )
        return not_bold(self.rows[found[0]][columns.index(column)])


def cells_of(line: str) -> tuple[str, ...]:
    r"""The cells of a line of a table in Markdown.

    Examples
    --------
    >>> cells_of(r"| a\|b |   1 |")
    ('a\\|b', '1')
    """
    return tuple(cell.strip() for cell in _CELL.findall(line.strip()[1:]))


def shown(cell: str) -> str:
    r"""What a cell shows: without the escapes of Markdown, and not bold.

    Examples
    --------
    >>> shown(r"0.5 \[0.4, 0.6\]"), shown("**7**")
    ('0.5 [0.4, 0.6]', '7')
    """
    return re.sub(r"\\(.)", r"\1", not_bold(cell))


def not_bold(cell: str) -> str:
    """A cell in Markdown as it is where it is not marked as the largest of its row or column."""
    is_bold = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    return cell[2:-2] if is_bold else cell


def _listed(rows: Sequence[Sequence[str]]) -> str:
    """The first cells of rows."""
    named = [f"[{','.join(map(shown, cells[:3]))}]" for cells in rows[:_MOST_NAMED]]
    more = f" and {len(rows) - len(named)} more" if len(rows) > len(named) else ""
    return " ".join(named) + more if named else "none"
