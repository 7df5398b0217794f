"""A table as wide as a terminal: long texts over several lines, the last columns left out."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from moedb.queries.results.formats.spool import CellSpool
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import SheetColumn, TableOptions

_BETWEEN = 2
_NARROWEST = 20
"""A column of long texts becomes no narrower than this."""

_MORE = "…"
_PLAIN = TableOptions()


@dataclass
class FittedTable:
    """A table as it is shown.

    Attributes
    ----------
    columns
        The columns that are shown.
    widths
        How wide each of them is, in cells of the terminal.
    left_out
        The names of the columns that are not.
    cells
        The cells of all columns.
    places
        Where the columns that are shown stand among all.
    cut
        The names of the columns of which a cell was cut short, known once the lines are read.
    """

    columns: Sequence[SheetColumn]
    widths: Sequence[int]
    left_out: Sequence[str]
    cells: CellSpool
    places: Sequence[int]
    cut: list[str]

    def lines(self, most: int) -> Iterator[str]:
        """Give the lines, without line breaks; a cell takes up to ``most`` of them."""
        headers = _PLAIN.headers(self.columns)
        yield from self._lines_of(headers, most)
        yield "  ".join("-" * width for width in self.widths)
        for cells in self.cells:
            yield from self._lines_of([cells[place] for place in self.places], most)

    def _lines_of(self, cells: Sequence[str], most: int) -> Iterator[str]:
        """The lines of one row; of a row of short cells there is one."""
        wrapped = []
        for column, width, text in zip(self.columns, self.widths, cells, strict=True):
            lines = wrap(text, width)
            if len(lines) > most:
                # as much as there is room for, in the middle of a word too
                rest = text
                for whole in lines[: most - 1]:
                    rest = rest[len(whole) :].lstrip(" ")
                lines = [*lines[: most - 1], _chopped(rest, width - 1)[0] + _MORE]
                if column.name not in self.cut:
                    self.cut.append(column.name)
            wrapped.append(lines)
        for n in range(max(map(len, wrapped), default=1)):
            line = [
                _aligned(lines[n] if n < len(lines) else "", width, column)
                for column, width, lines in zip(self.columns, self.widths, wrapped, strict=True)
            ]
            yield "  ".join(line).rstrip()


def fit(
    stream: RowStream, width: int, keep_all: bool = False, asked: Collection[str] = ()
) -> FittedTable:
    """Lay the rows of a stream out for a terminal.

    Long texts and headers are set over several lines. Columns that do not fit even so are left
    out, from the right, where a question has what matters least.

    Parameters
    ----------
    stream
        The rows; all are read here.
    width
        How many cells a line of the terminal has.
    keep_all
        Leave no column out: lines may be longer then.
    asked
        Columns that stay where there is room for them, such as those that the rows are ordered by.
    """
    cells = CellSpool(stream.columns, stream.rows(), width_of=cell_width)
    headers = [cell_width(header) for header in _PLAIN.headers(stream.columns)]
    full = [max(pair) for pair in zip(headers, cells.widths, strict=True)]
    # numbers stay on one line, whatever stands above them
    least = [
        min(natural, max(_NARROWEST, 0 if column.kind == "text" else inside))
        for column, natural, inside in zip(stream.columns, full, cells.widths, strict=True)
    ]
    names = [column.name for column in stream.columns]
    places = list(range(len(least)))
    if not keep_all:
        first = [place for place in places if place == 0 or names[place] in asked]
        ordered = [*first, *(place for place in places if place not in first)]
        n_shown = _n_that_fit([least[place] for place in ordered], width)
        places = sorted(ordered[:n_shown])
    widths = _widened([least[n] for n in places], [full[n] for n in places], width)
    if len(places) == 1 and not keep_all:
        widths = [min(widths[0], max(width, 2))]
    shown = [stream.columns[place] for place in places]
    left_out = [name for place, name in enumerate(names) if place not in places]
    return FittedTable(shown, widths, left_out, cells, places, [])


def _n_that_fit(least: Sequence[int], width: int) -> int:
    """How many columns stand side by side; the first always does."""
    used = -_BETWEEN
    for n, each in enumerate(least):
        used += _BETWEEN + each
        if used > width:
            return max(n, 1)
    return len(least)


def _widened(least: Sequence[int], full: Sequence[int], width: int) -> list[int]:
    """Give what is left of a line to the columns that want it, to the narrowest of them first."""
    widths = list(least)
    left = width - sum(widths) - _BETWEEN * (len(widths) - 1)
    wanting = [n for n in range(len(widths)) if widths[n] < full[n]]
    while left > 0 and wanting:
        narrowest = min(wanting, key=lambda n: widths[n])
        widths[narrowest] += 1
        left -= 1
        wanting = [n for n in wanting if widths[n] < full[n]]
    return widths


def cell_width(text: str) -> int:
    """How many cells of a terminal a text takes: two for a Chinese character.

    Examples
    --------
    >>> cell_width("é中文")
    5
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text that is set in a column, broken at spaces where there are some.

    Examples
    --------
    >>> wrap("one row is a routing decision", 12)
    ['one row is a', 'routing', 'decision']
    """
    if cell_width(text) <= width:
        return [text]
    lines = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_width(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = _chopped(word, width)
        lines += whole
    return [*lines, line]


def _chopped(word: str, width: int) -> list[str]:
    """The parts of a word that is wider than a column."""
    parts = [""]
    used = 0
    for character in word:
        wide = cell_width(character)
        if used + wide > width and parts[-1]:
            parts.append("")
            used = 0
        parts[-1] += character
        used += wide
    return parts


def _aligned(text: str, width: int, column: SheetColumn) -> str:
    space = " " * (width - cell_width(text))
    return text + space if column.alignment == "left" else space + text
