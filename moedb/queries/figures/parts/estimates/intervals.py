"""The interval of what a figure draws, and what chance gives, where the rows have them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

BARS = "bars: 95 % intervals"
BANDS = "bands: 95 % intervals"
CHANCE = "hollow: chance, and the middle 95 % of it"
"""What a figure says below of what was drawn."""

ASIDE = 0.12
"""How far what chance gives stands from its layer, off the interval."""


def ends_of(
    frame: "pd.DataFrame", value: str
) -> "tuple[NDArray[np.float64], NDArray[np.float64]] | None":
    """Return the ends of the intervals of a column, NaN where there is none.

    Parameters
    ----------
    frame
        The rows.
    value
        The column of the estimates.

    Returns
    -------
    tuple of NDArray, or None
        Each (row,); None where the rows have no interval of the column.
    """
    names = [f"{value}_low", f"{value}_high"]
    if not set(names) <= set(frame) or frame[names].isna().to_numpy().all():
        return None
    low, high = (frame[name].to_numpy(float) for name in names)
    return low, high


def draw_bars(
    ax: "Axes", at: "NDArray[np.float64]", frame: "pd.DataFrame", value: str, colour: Any
) -> list[str]:
    """Draw the intervals of points as bars; say so, or nothing where there are none."""
    ends = ends_of(frame, value)
    if ends is None:
        return []
    found = frame[value].to_numpy(float)
    style = {"fmt": "none", "ecolor": colour, "elinewidth": 0.6, "capsize": 1.5, "capthick": 0.6}
    ax.errorbar(at, found, distances(found, *ends), **style)
    return [BARS]


def draw_band(
    ax: "Axes", at: "NDArray[np.float64]", frame: "pd.DataFrame", value: str, colour: Any
) -> list[str]:
    """Draw the intervals of a line's points as a band, of one point as a bar; say which."""
    ends = ends_of(frame, value)
    if ends is None:
        return []
    if len(frame) == 1:
        return draw_bars(ax, at, frame, value, colour)
    ax.fill_between(at, *ends, color=colour, alpha=0.25, linewidth=0)
    return [BANDS]


def draw_chance(
    ax: "Axes", at: "NDArray[np.float64]", frame: "pd.DataFrame", value: str, colour: Any
) -> list[str]:
    """Draw what chance gives in the place of a column as hollow marks; say so if it is known."""
    name = f"{value}_null"
    if name not in frame or frame[name].isna().all():
        return []
    found = frame[name].to_numpy(float)
    ends = ends_of(frame, name)
    ax.errorbar(
        at,
        found,
        None if ends is None else distances(found, *ends),
        linestyle="none",
        marker="o",
        markersize=2.2,
        markerfacecolor="white",
        markeredgewidth=0.6,
        elinewidth=0.6,
        color=colour,
        zorder=1,
    )
    return [CHANCE]


def distances(
    found: "NDArray[np.float64]", low: "NDArray[np.float64]", high: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """(2, point): how far the ends are from estimates, 0 where one is missing."""
    import numpy as np

    # an end may miss the estimate by rounding
    far: NDArray[np.float64] = np.maximum(np.nan_to_num([found - low, high - found]), 0.0)
    return far
