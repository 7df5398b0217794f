"""A result laid out as a table to show: columns picked, pivoted, cut, the largest set in bold."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from moedb.errors import UsageError, did_you_mean
from moedb.queries.results.cells import (
    NO_END,
    Estimate,
    Kind,
    estimate_text,
    kind_of,
    plain_text,
)
from moedb.queries.results.result import Result
from moedb.queries.results.values.conversions import NOT_IN_PYTHON
from moedb.queries.results.values.intervals import (
    HIGH,
    LOW,
    Fold,
    Intervals,
    estimates_with_ends,
)
from moedb.queries.results.visible import visible
from moedb.schemas.formats import DATA_FORMATS, FONT_SIZES

_Key = tuple[bool, str]

_LABEL = re.compile(r"[A-Za-z0-9:._/+-]+")
MOST_ROWS = 2**62
"""More than any limit has to be, and no more than DuckDB takes."""
_PAPER_PRECISION = 3

LACKING = f"[{NO_END}]: no interval, as too few examples, or none that differ, are behind it"
"""What the line below a table says where an estimate has no interval."""

Environment = Literal["table", "table*", "longtable"]
"""The LaTeX environments of a table: on a page, across two columns, over pages."""


@dataclass(frozen=True)
class TableOptions:
    """How a result becomes a table.

    Attributes
    ----------
    caption, label
        For LaTeX; the caption also for Markdown and HTML.
    caption_is_latex
        Whether the caption is LaTeX already and goes in as it is. It is escaped otherwise.
    precision
        Digits after the decimal point of a float. Without it 3 in a table for a paper, and 4
        significant digits on a terminal. CSV, JSON and Parquet always hold the full value.
    bold
        Mark the largest value of each row, or of each column. Candidates are the float columns,
        or all value columns of a pivot. Values that print alike are all marked.
    columns
        The columns to show, in this order; with a pivot, columns of the pivoted table.
    pivot
        The three columns (index, columns, values): a row for each value of the first, a column for
        each of the second, the third in the cells.
    limit
        Keep this many rows. A footer says when rows were left out.
    footer
        Whether LaTeX, Markdown and HTML name the model and the run below the table.
    header_names
        What to print instead of a column's name; in a pivot also instead of the name over the
        pivoted columns. CSV, JSON and Parquet keep the names.
    environment
        For LaTeX, one of :data:`Environment`.
    font_size
        For LaTeX, one of :data:`moedb.schemas.formats.FONT_SIZES`; that of the text unless given.
    intervals
        How an interval is shown, the columns ``X_low`` and ``X_high`` of an estimate ``X``:
        ``brackets`` and ``plus-minus`` put it into the cells of ``X``, ``columns`` leaves it in
        columns of its own, as CSV, JSON and Parquet always do. Without it ``brackets`` where
        intervals or what chance gives were asked for, ``columns`` elsewhere.
    """

    caption: str | None = None
    label: str | None = None
    precision: int | None = None
    bold: Literal["row-max", "column-max"] | None = None
    columns: tuple[str, ...] | None = None
    pivot: tuple[str, str, str] | None = None
    limit: int | None = None
    footer: bool = True
    header_names: Mapping[str, str] = field(default_factory=dict)
    caption_is_latex: bool = False
    environment: Environment = "table"
    font_size: str | None = None
    intervals: Intervals | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and not 0 <= self.precision <= 17:
            raise UsageError(f"precision {self.precision} is out of range: 0 to 17 digits")
        if self.bold not in (None, "row-max", "column-max"):
            raise UsageError(f"bold {self.bold!r} is unknown: row-max or column-max")
        if self.limit is not None and self.limit < 0:
            raise UsageError(f"limit {self.limit} is negative: 0 rows or more")
        if self.label is not None and not _LABEL.fullmatch(self.label):
            raise UsageError(
                f"label {self.label!r} is no LaTeX label: letters, digits and : . _ / + - only"
            )
        if self.pivot is not None and (len(self.pivot) != 3 or len(set(self.pivot)) != 3):
            raise UsageError(
                f"pivot {list(self.pivot)} does not name three columns: index, columns, values"
            )
        if self.columns is not None and not self.columns:
            raise UsageError("columns is empty: name at least one")
        if self.environment not in get_args(Environment):
            hint = did_you_mean(self.environment, get_args(Environment))
            raise UsageError(f"no LaTeX environment {self.environment!r} for a table", hint)
        if self.font_size is not None and self.font_size not in FONT_SIZES:
            hint = did_you_mean(self.font_size, FONT_SIZES)
            raise UsageError(f"no size of letters {self.font_size!r}", hint)
        if self.intervals not in (None, *get_args(Intervals)):
            hint = did_you_mean(str(self.intervals), get_args(Intervals))
            raise UsageError(f"intervals are not shown as {self.intervals!r}", hint)

    @property
    def paper_precision(self) -> int:
        """Digits after the point in a table for a paper."""
        return _PAPER_PRECISION if self.precision is None else self.precision

    def in_format(self, format: str) -> "TableOptions":
        """Return the options as a format takes them: one for data has intervals in columns.

        Raises
        ------
        UsageError
            If a format for data is to have them in cells.
        """
        if format not in DATA_FORMATS:
            return self
        if self.intervals not in (None, "columns"):
            raise UsageError(
                f"{format} keeps intervals in columns of their own, and has no {self.intervals}",
                "leave --intervals out, or name a file that ends in .tex, .md or .html",
            )
        return replace(self, intervals="columns")

    def headers(self, columns: "Sequence[SheetColumn]") -> list[str]:
        """What is printed above the columns, safe to look at."""
        return [visible(self.header_names.get(each.name, each.name)) for each in columns]


def environment_of(longtable: bool, table_star: bool) -> Environment:
    """Return the LaTeX environment of a table over pages, over two columns, or neither.

    Raises
    ------
    UsageError
        If it is to be both.
    """
    if longtable and table_star:
        raise UsageError(
            "--longtable and --table-star do not go together: a table over pages does not float",
            "give one of them",
        )
    return "longtable" if longtable else "table*" if table_star else "table"


@dataclass(frozen=True)
class SheetColumn:
    """A column of a sheet.

    Attributes
    ----------
    name
        Its name; in a pivot the value that it stands for, as text.
    kind
        How its cells are printed and aligned.
    sql_type
        The type of its values in DuckDB.
    source
        The column of the result that its values come from, by position.
    is_pivoted
        Whether a pivot made it.
    """

    name: str
    kind: Kind
    sql_type: str
    source: int
    is_pivoted: bool = False

    @property
    def alignment(self) -> Literal["left", "right"]:
        """The side that its cells are set to."""
        return "left" if self.kind == "text" else "right"


@dataclass(frozen=True)
class Sheet:
    """A result laid out.

    Attributes
    ----------
    source
        The result.
    columns
        The columns, in order.
    rows
        The values, one tuple a row.
    spanner
        The name over the pivoted columns, in a pivot.
    truncated
        Whether ``limit`` left rows out.
    """

    source: Result
    columns: tuple[SheetColumn, ...]
    rows: tuple[tuple[Any, ...], ...]
    spanner: str | None = None
    truncated: bool = False

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def footer(self) -> str:
        """The line below the table: how it was cut, where it comes from, what to know of it."""
        cut = f"first {len(self.rows)} rows; " if self.truncated else ""
        lacking = f"; {LACKING}" if self.lacks_an_end else ""
        return visible(cut + self.source.footer + lacking)

    @property
    def lacks_an_end(self) -> bool:
        """Whether an estimate that is shown with its interval has none, or one end alone."""
        return any(
            isinstance(value, Estimate) and value.lacks_an_end for row in self.rows for value in row
        )

    @property
    def spanned(self) -> range:
        """The positions below the spanner: the pivoted columns, where they stand side by side."""
        pivoted = [p for p, column in enumerate(self.columns) if column.is_pivoted]
        side_by_side = bool(pivoted) and pivoted[-1] - pivoted[0] == len(pivoted) - 1
        return range(pivoted[0], pivoted[-1] + 1) if side_by_side else range(0)


def arrange(result: Result, options: TableOptions) -> Sheet:
    """Run a query and lay its rows out as the options say.

    Parameters
    ----------
    result
        The query.
    options
        Its ``columns``, ``pivot``, ``limit`` and ``intervals`` count here, and ``header_names``
        has to fit.

    Raises
    ------
    UsageError
        If a column is unknown, or two rows of a pivot fall into one cell.
    """
    fold = fold_of(result, options)
    places = fold.places(result.columns)
    columns = tuple(columns_of(result)[place] for place, *_ in places)
    exact = result.as_text(NOT_IN_PYTHON)
    if options.pivot is None and options.limit is not None:
        exact = exact.limit(min(options.limit + 1, MOST_ROWS))
    rows = tuple(fold.row(row, places) for row in exact.fetchall())
    if options.pivot is None:
        sheet = Sheet(result, columns, rows)
    else:
        sheet = _pivot(result, columns, rows, options.pivot, _ends_beside(result, fold, options))
    if options.columns is not None:
        sheet = _pick(sheet, options.columns)
    if options.limit is not None and len(sheet.rows) > options.limit:
        sheet = replace(sheet, rows=sheet.rows[: options.limit], truncated=True)
    check_renamed(sheet.columns, options.header_names, sheet.spanner)
    return sheet


def fold_of(result: Result, options: TableOptions) -> Fold:
    """Return which estimates of a result have their interval in their cells.

    An end that ``columns`` or ``pivot`` names keeps its column, and that of the other end.

    Raises
    ------
    UsageError
        If intervals are to be in cells, and no estimate has one.
    """
    known = estimates_with_ends(result.columns, [kind_of(each) for each in result.types])
    chosen = options.intervals
    if chosen is None:
        # the provenance is read only where it matters
        chosen = "brackets" if known and result.tells_doubt else "columns"
    if chosen == "columns":
        return Fold()
    if not known:
        raise UsageError(
            f"intervals {chosen}: no column X has columns X_low and X_high beside it",
            "--ci asks a named query for intervals",
        )
    named = (options.columns or ()) if options.pivot is None else options.pivot
    return Fold.of(known, named, chosen)


def check_renamed(
    columns: Sequence[SheetColumn], header_names: Mapping[str, str], spanner: str | None = None
) -> None:
    """Check that every column that is given another name is shown.

    Parameters
    ----------
    columns
        The columns that are shown.
    header_names
        For each column its new name.
    spanner
        The name over the pivoted columns.

    Raises
    ------
    UsageError
        If one isn't.
    """
    shown = [column.name for column in columns]
    shown += [] if spanner is None else [spanner]
    for name in header_names:
        if name not in shown:
            raise UsageError(f"rename: the table has no column {name!r}", did_you_mean(name, shown))


def columns_of(result: Result) -> tuple[SheetColumn, ...]:
    """The columns of a result, in its order."""
    return tuple(
        SheetColumn(name, kind_of(sql_type), sql_type, position)
        for position, (name, sql_type) in enumerate(zip(result.columns, result.types, strict=True))
    )


def position_of(columns: Sequence[SheetColumn], name: str, what: str) -> int:
    """Return the position of the one column that is called ``name``.

    Parameters
    ----------
    columns
        The columns.
    name
        The name.
    what
        What names it, for the error.

    Raises
    ------
    UsageError
        If there is none, or more than one.
    """
    names = [column.name for column in columns]
    if name not in names:
        raise UsageError(f"{what}: the result has no column {name!r}", did_you_mean(name, names))
    if names.count(name) > 1:
        raise UsageError(
            f"{what}: {names.count(name)} columns are named {name!r}", "rename one: as"
        )
    return names.index(name)


def _pick(sheet: Sheet, names: tuple[str, ...]) -> Sheet:
    positions = [position_of(sheet.columns, name, "columns") for name in names]
    columns = tuple(sheet.columns[position] for position in positions)
    rows = tuple(tuple(row[position] for position in positions) for row in sheet.rows)
    return replace(sheet, columns=columns, rows=rows)


def _pivot(
    result: Result,
    columns: tuple[SheetColumn, ...],
    rows: Sequence[tuple[Any, ...]],
    pivot: tuple[str, str, str],
    ends: Sequence[str],
) -> Sheet:
    at, across, values = (position_of(columns, name, "pivot") for name in pivot)
    places = [values, *(position_of(columns, end, "pivot") for end in ends)]
    cells: dict[tuple[_Key, _Key], list[Any]] = {}
    index: dict[_Key, Any] = {}
    headers: dict[_Key, Any] = {}
    for row in rows:
        here, there = _key(row[at]), _key(row[across])
        index.setdefault(here, row[at])
        headers.setdefault(there, row[across])
        if (here, there) in cells:
            raise UsageError(
                f"pivot: more than one row has {pivot[0]} {here[1]} and {pivot[1]} {there[1]}",
                "narrow the query to one row a cell, for example to one run",
            )
        cells[here, there] = [row[place] for place in places]
    ordered = list(headers)
    if columns[across].kind != "text":
        ordered.sort(key=lambda key: (headers[key] is None, headers[key] or 0))
    pivoted = (
        SheetColumn(key[1] + ending, of.kind, of.sql_type, of.source, True)
        for key in ordered
        for of, ending in zip((columns[place] for place in places), ("", LOW, HIGH), strict=False)
    )
    none = [None] * len(places)
    return Sheet(
        result,
        (columns[at], *pivoted),
        tuple(
            (index[here], *(v for there in ordered for v in cells.get((here, there), none)))
            for here in index
        ),
        spanner=pivot[1],
    )


def _ends_beside(result: Result, fold: Fold, options: TableOptions) -> Sequence[str]:
    """The ends that get columns of their own behind those of a pivot's values."""
    name = "" if options.pivot is None else options.pivot[2]
    known = estimates_with_ends(result.columns, [kind_of(each) for each in result.types])
    if name not in known or name in fold.ends or not result.tells_doubt:
        return ()
    return known[name]


def _key(value: object) -> _Key:
    return value is None, plain_text(value, null="null")


def bold_cells(sheet: Sheet, options: TableOptions, precision: int) -> set[tuple[int, int]]:
    """Return the (row, column) positions of the cells to set in bold.

    Parameters
    ----------
    sheet
        The table.
    options
        Its ``bold`` counts here.
    precision
        The digits printed: values that print alike tie.

    Raises
    ------
    UsageError
        If no column can hold a largest value.
    """
    if options.bold is None:
        return set()
    candidates = [
        position
        for position, column in enumerate(sheet.columns)
        if column.kind == "float" or (column.is_pivoted and column.kind == "integer")
    ]
    if not candidates:
        listed = ", ".join(f"{column.name} {column.sql_type}" for column in sheet.columns)
        raise UsageError(f"bold {options.bold}: no column holds floats", f"columns: {listed}")
    rows = range(len(sheet.rows))
    if options.bold == "row-max":
        groups = [[(row, column) for column in candidates] for row in rows]
    else:
        groups = [[(row, column) for row in rows] for column in candidates]
    bold: set[tuple[int, int]] = set()
    for group in groups:
        values = {(r, c): sheet.rows[r][c] for r, c in group}
        finite = {
            cell: value
            for cell, value in values.items()
            if value is not None and not math.isnan(_number(value))
        }
        if finite:
            largest = estimate_text(max(finite.values(), key=_number), precision)
            bold |= {cell for cell, v in finite.items() if estimate_text(v, precision) == largest}
    return bold


def _number(value: Any) -> Any:
    """The number of a cell; of an estimate that has none, NaN."""
    if not isinstance(value, Estimate):
        return value
    return math.nan if value.value is None else value.value
