"""Rows with a name each, and in a row an estimate, its interval and what to hold it against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.figure import COLUMN, TALLEST, figure_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.125
"""The height of a row in inches that has room for a name."""

_AROUND = 0.75
"""Inches above and below the rows: a title, an axis, a legend."""

MOST_NAMED = int((TALLEST - _AROUND) / ROW) - 1
"""Rows on a page that can have a name each."""

ALWAYS_YES: dict[str, Any] = {"marker": "|", "color": "0.35", "markersize": 6}
OTHER: dict[str, Any] = {"marker": "x", "color": "C1", "markersize": 3}
"""How the two marks look that estimates are held against."""


@dataclass(frozen=True)
class Points:
    """What stands in a row.

    Attributes
    ----------
    estimate, low, high
        The columns of the estimate and of the ends of its interval.
    label
        What the estimate is called.
    marks
        Of each mark beside it the column, its name and its style.
    """

    estimate: str
    low: str
    high: str
    label: str
    marks: tuple[tuple[str, str, dict[str, Any]], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are drawn."""
        return (self.estimate, self.low, self.high, *(column for column, _, _ in self.marks))


def height_of_rows(n_rows: int) -> float:
    """Return the height in inches of a figure with so many rows."""
    return min(max(1.5, _AROUND + ROW * n_rows), TALLEST)


def draw_points(ax: "Axes", frame: "pd.DataFrame", points: Points, at: "Sequence[int]") -> None:
    """Draw rows, from 0 to 1 on x.

    Parameters
    ----------
    ax
        Where to draw.
    frame
        A row for each.
    points
        What stands in a row; of what is null there nothing is drawn.
    at
        Which row of the figure each is, 0 on top.
    """
    import numpy as np

    found, low, high = (
        frame[name].to_numpy(float) for name in (points.estimate, points.low, points.high)
    )
    # an end may miss the estimate by rounding
    errors = np.maximum(np.nan_to_num([found - low, high - found]), 0.0)
    for column, label, style in points.marks:
        ax.plot(frame[column].to_numpy(float), at, linestyle="none", label=label, **style)
    ax.errorbar(
        found,
        at,
        xerr=errors,
        linestyle="none",
        marker="o",
        markersize=2.5,
        elinewidth=0.7,
        color="C0",
        label=points.label,
    )
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(-0.04, 1.05)
    ax.set_xticks([0.0, 0.5, 1.0], ["0", ".5", "1"])
    ax.spines[["top", "right"]].set_visible(False)


def name_rows(ax: "Axes", names: Sequence[str]) -> None:
    """Write the names of rows on y, as many as there is room for, the first on top."""
    step = -(-len(names) // MOST_NAMED)
    ax.set_yticks(range(0, len(names), step), names[::step])
    ax.set_ylim(len(names) - 0.4, -0.6)


def legend_of_points(figure: "Figure", ax: "Axes") -> None:
    """Write above a figure what stands in its rows, the estimate first."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        [*handles[-1:], *handles[:-1]],
        [*labels[-1:], *labels[:-1]],
        loc="outside upper center",
        ncols=3 if figure_width() > COLUMN + 1 else 2,
    )
