"""Cells that wait in a temporary file until the widths of their columns are known."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from moedb.errors import MoedbError
from moedb.queries.results.cells import shown_text
from moedb.queries.results.sheets import SheetColumn

_BETWEEN = "\x1f"
_IN_MEMORY = 8 * 2**20


class CellSpool:
    """Rows as text to look at: written once, read as often as wanted.

    Parameters
    ----------
    columns
        The columns.
    rows
        Their values; they are taken here.
    precision
        Digits after the point of a float; None for 4 significant digits.
    width_of
        How wide a cell is.

    Attributes
    ----------
    widths
        For each column the width of its widest cell.
    n_rows
        How many rows there are.

    Raises
    ------
    MoedbError
        If the temporary folder cannot hold them.
    """

    def __init__(
        self,
        columns: Sequence[SheetColumn],
        rows: Iterable[Sequence[Any]],
        precision: int | None = None,
        width_of: Callable[[str], int] = len,
    ) -> None:
        self.widths = [0] * len(columns)
        self.n_rows = 0
        # what is shown holds neither a line break nor another control character
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  it lives as long as this
            _IN_MEMORY, "w+", encoding="utf-8", errors="surrogatepass", newline="\n"
        )
        for row in rows:
            cells = [shown_text(value, precision) for value in row]
            self.widths = list(map(max, self.widths, map(width_of, cells)))
            self.n_rows += 1
            try:
                self._file.write(_BETWEEN.join(cells) + "\n")
            except OSError as error:
                raise MoedbError(
                    f"the rows do not fit into {tempfile.gettempdir()}, where they wait until the "
                    f"table's widths are known: {error.strerror or error}",
                    "set TMPDIR to another folder, or take --format csv, which does not wait",
                ) from error

    def __iter__(self) -> Iterator[list[str]]:
        self._file.seek(0)
        for line in self._file:
            yield line[:-1].split(_BETWEEN)
