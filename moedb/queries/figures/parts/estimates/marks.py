"""Dots in the cells of heat maps that are not told from what chance gives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.estimates.intervals import ends_of
from moedb.queries.figures.parts.figure import figure_of
from moedb.queries.figures.parts.text_fitting import cell_in_points, dark_cells

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MOST_Q = 0.05
"""A cell whose rate of false discoveries is below this is told from chance."""

LIFT_NOTE = "the 95 % interval of its lift holds 1, or there is none"
CHANCE_NOTE = f"within what chance gives (q of {MOST_Q} or more)"

_DIAMETER = 1.8
"""Of a dot in points, where the cell is large."""
_OF_CELL = 0.4
"""Of a dot, as a share of a small cell."""


def holds(
    frame: "pd.DataFrame", value: str, level: "float | pd.Series[float]"
) -> "NDArray[np.bool_] | None":
    """(row,): whether the interval of a column holds a level, or is missing.

    None where the rows have no interval of the column.
    """
    import numpy as np

    ends = ends_of(frame, value)
    if ends is None:
        return None
    low, high = ends
    levels = np.asarray(level, dtype=float)
    held: NDArray[np.bool_] = ~((low > levels) | (high < levels))
    return held


def is_as_chance(frame: "pd.DataFrame", value: str) -> "NDArray[np.bool_] | None":
    """(row,): whether a column is within what chance gives; None where that was not asked for."""
    import numpy as np

    name = f"{value}_q"
    if name not in frame or frame[name].isna().all():
        return None
    held: NDArray[np.bool_] = ~(frame[name].to_numpy(float) < MOST_Q)
    return held


def dot_note(why: str, masks: "Sequence[NDArray[np.bool_]]") -> str:
    """Return what a figure says of its dots, also where there is none."""
    return f"dot: {why}" if any(mask.any() for mask in masks) else f"no dot: nowhere {why}"


def mark_cells(axes: "Sequence[Axes]", masks: "Sequence[NDArray[np.bool_]]") -> None:
    """Draw a dot into each cell of heat maps that a mask names and that has a value.

    Parameters
    ----------
    axes
        The heat maps, in one figure that has its size and all else drawn.
    masks
        For each of them (row, column).
    """
    import numpy as np

    if not axes:
        return
    figure = figure_of(axes[0])
    figure.draw_without_rendering()
    for ax, mask in zip(axes, masks, strict=True):
        matrix = np.ma.filled(ax.images[0].get_array(), np.nan)  # type: ignore[arg-type]
        rows, columns = np.nonzero(mask & np.isfinite(matrix))
        if not len(rows):
            continue
        width, height = cell_in_points(figure, ax)
        diameter = min(_DIAMETER, _OF_CELL * min(width, height))
        aside, up = 0.0, 0.0
        if ax.texts:  # off the numbers
            from_edge = diameter / 2 + 0.6
            aside, up = 0.5 - from_edge / width, 0.5 - from_edge / height
        colours: Any = np.where(dark_cells(ax)[rows, columns], "white", "black")
        limits = ax.get_xlim(), ax.get_ylim()
        ax.scatter(columns + aside, rows - up, s=diameter**2, c=colours, linewidths=0)
        ax.set(xlim=limits[0], ylim=limits[1])
