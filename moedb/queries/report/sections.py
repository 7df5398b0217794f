"""What a page is made of: sections, and in each the named queries that it shows.

This is data. How it is written to files is in :mod:`moedb.queries.report.writing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """One named query of a report, as a figure, as a table, or as both.

    Attributes
    ----------
    stem
        The name of its files, without ending.
    query, parameters
        What is asked.
    caption
        What it shows.
    figure
        Whether there is one.
    value
        Which column the figure shows; the figure's own choice unless given.
    table
        Whether there is one.
    columns
        Those of the LaTeX table and of the page; all unless given. The CSV has every one.
    pivot
        How the LaTeX table and the page lay it out, in place of columns.
    latex
        Whether the table is there as LaTeX too; not so where its rows are far too many.
    on_page
        Whether the page holds the table too, not only links to it.
    of_interventions
        Whether it needs a run of interventions.
    by_kind
        Whether there is a figure for each kind of intervention, not one for all.
    """

    stem: str
    query: str
    caption: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    figure: bool = False
    value: str | None = None
    table: bool = True
    columns: tuple[str, ...] | None = None
    pivot: tuple[str, str, str] | None = None
    latex: bool = True
    on_page: bool = True
    of_interventions: bool = False
    by_kind: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    text: str
    parts: tuple[Part, ...]
