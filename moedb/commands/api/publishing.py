"""Tables, figures and pages from Python, as ``export``, ``plot`` and ``report`` make them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.queries.database import Database
    from moedb.queries.results.result import Result
    from moedb.queries.results.values.intervals import Intervals


def export(
    result: "Result",
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    pivot: tuple[str, str, str] | None = None,
    rename: Mapping[str, str] | None = None,
    caption: str | None = None,
    label: str | None = None,
    precision: int | None = None,
    bold: Literal["row-max", "column-max"] | None = None,
    intervals: "Intervals | None" = None,
    limit: int | None = None,
    longtable: bool = False,
    table_star: bool = False,
    font_size: str | None = None,
    footer: bool = True,
    format: str | None = None,
    allow_empty: bool = False,
) -> list[Path]:
    """Write a result as a table, by the ending of ``path``, with a sidecar beside it.

    Parameters
    ----------
    result
        The query; it runs now.
    path
        A file that ends in .tex, .csv, .md, .html, .json, .jsonl or .parquet.
    columns
        Columns to show, in order.
    pivot
        Rows, columns and values: one column laid out over two others.
    rename
        For a column what is printed above it.
    caption, label
        Of the table; the label is LaTeX's.
    precision
        Digits after the point.
    bold
        Which largest values are marked.
    intervals
        How intervals are shown: ``brackets``, ``plus-minus`` or ``columns``.
    limit
        Rows at most.
    longtable, table_star, font_size
        A LaTeX table over pages, or over two columns; and the size of its letters.
    footer
        Whether a line below names model and run.
    format
        Another format than the ending's.
    allow_empty
        Whether to write a table without rows.

    Returns
    -------
    list of Path
        The files written: the table, its sidecar.

    Raises
    ------
    UsageError
        If an option does not fit, a column is unknown, or there are no rows.

    Examples
    --------
    >>> db = moedb.open("moedb-store")  # doctest: +SKIP
    >>> moedb.export(db.query("concentration"), "concentration.tex")  # doctest: +SKIP
    """
    from moedb.queries.results.export import export as write_table
    from moedb.queries.results.sheets import TableOptions, environment_of

    options = TableOptions(
        columns=None if columns is None else tuple(columns),
        pivot=pivot,
        header_names=dict(rename or {}),
        caption=caption,
        label=label,
        precision=precision,
        bold=bold,
        intervals=intervals,
        limit=limit,
        environment=environment_of(longtable, table_star),
        font_size=font_size,
        footer=footer,
    )
    return write_table(result, path, options, format, allow_empty=allow_empty)


def export_duckdb(
    database: "Database",
    path: str | Path,
    *,
    run: str | Iterable[str] | None = None,
    copy: bool = False,
) -> list[Path]:
    """Write a database file that any DuckDB from 1.5 on opens, with the runs of a store.

    It has the tables, the views, and the named queries as table macros: ``from load_balance()``.

    Parameters
    ----------
    database
        The store.
    path
        The file; one that is there is replaced.
    run
        The runs: names, or patterns such as ``text-*``; None for every complete one.
    copy
        Whether all rows are copied. Without, large tables stay in the store, where the file's views
        read them.

    Returns
    -------
    list of Path
        The files written: the database, its sidecar.

    Raises
    ------
    UsageError
        If the file cannot be written, or the store is not on a disk and ``copy`` is not set.
    RunNotFoundError
        If there is no such run, or none is complete.

    Examples
    --------
    >>> moedb.export_duckdb(moedb.open("moedb-store"), "runs.duckdb")  # doctest: +SKIP
    """
    from moedb.queries.report.duckdb_file import write_duckdb

    return write_duckdb(database, path, run, copy=copy).paths


def plot(
    result: "Result",
    path: str | Path,
    *,
    value: str | None = None,
    top: int | None = None,
    width: float | str | None = None,
    title: str | None = None,
    footer: bool = True,
    allow_empty: bool = False,
) -> list[Path]:
    """Draw the figure of a named query into a file, with a sidecar beside it.

    Parameters
    ----------
    result
        The rows of a named query; it runs now.
    path
        A file that ends in .pdf, .png or .svg.
    value
        Which column the colours, lines or bars show.
    top
        Only the most used experts.
    width
        Inches, or ``column`` or ``text`` of a page.
    title
        In the place of a single panel's; empty for none.
    footer
        Whether a line below names model and run.
    allow_empty
        Whether to draw a result without rows.

    Returns
    -------
    list of Path
        The files written: the figure, its sidecar.

    Raises
    ------
    UsageError
        If there is no figure of the query, an option does not fit, or there are no rows.

    Examples
    --------
    >>> db = moedb.open("moedb-store")  # doctest: +SKIP
    >>> moedb.plot(db.query("expert-frequency"), "frequency.pdf")  # doctest: +SKIP
    """
    from moedb.queries.figures.drawing import draw
    from moedb.queries.figures.parts.layout import Layout, read_width
    from moedb.queries.figures.registry import PLOTS

    name = result.provenance.name
    if name is None or name not in PLOTS:
        of = "SQL that was typed" if name is None else repr(name)
        hint = f"valid: {', '.join(PLOTS)}" if name is None else did_you_mean(name, PLOTS)
        raise UsageError(f"there is no figure of {of}; {hint}")
    layout = Layout(None if width is None else read_width(str(width)), title, footer)
    given = {key: each for key, each in (("value", value), ("top", top)) if each is not None}
    return draw(name, result, path, layout, allow_empty=allow_empty, **given)


def report(
    database: "Database",
    path: str | Path,
    run: str | None = None,
    *,
    run_b: str | None = None,
    resampling: "Resampling | None" = None,
) -> list[Path]:
    """Write a page of a run that opens from the disk.

    Parameters
    ----------
    database
        The store.
    path
        A file that ends in .html, or a folder for files that hold a part each.
    run
        The run, or the beginning of its name; the newest complete one unless given.
    run_b
        A run over the same tokens: where both choose the same experts is shown too.
    resampling
        How intervals are found; None for none.

    Returns
    -------
    list of Path
        The files written, the one to begin with first.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    UsageError
        If a run holds no routing decisions, or ``path`` cannot be written.

    Examples
    --------
    >>> db = moedb.open("moedb-store")  # doctest: +SKIP
    >>> moedb.report(db, "report.html", resampling=moedb.Resampling())  # doctest: +SKIP
    """
    from moedb.queries.report.pages.subject import subject_of
    from moedb.queries.report.pages.writing import write_folder, write_page

    subject = subject_of(database, run, run_b, resampling)
    place = Path(path)
    write = write_page if place.suffix.lower() == ".html" else write_folder
    return [*write(subject, place).files]
