"""A figure of the right size, and what describes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALLEST = 8.5
"""The height of a page, in inches."""

COLUMN = 3.4
"""The width of one column of a page, in inches; the style's width of a figure too."""

TWO_COLUMNS = 7.0
"""The width of a page's two columns, in inches."""


@dataclass(frozen=True)
class Plot:
    """A figure that :func:`~.drawing.draw` can make.

    Attributes
    ----------
    title
        What it shows.
    paint
        Draws a frame on a new figure of the right size, with options.
    options
        The options it takes, and how each is read.
    width
        How wide it is in inches unless asked otherwise.
    over_runs
        Whether it also draws the rows of several runs.
    """

    title: str
    paint: "Callable[..., Figure]"
    options: Mapping[str, Callable[[Any], Any]]
    width: float = COLUMN
    over_runs: bool = False


def figure_width() -> float:
    """Return the width in inches of the figure that is asked for, by matplotlib's settings."""
    import matplotlib as mpl

    return float(mpl.rcParams["figure.figsize"][0])


def new_figure(height: float) -> "Figure":
    """Return a figure of the width that is asked for."""
    from matplotlib.figure import Figure

    return Figure(figsize=(figure_width(), height))


def height_of_layers(n_layers: int) -> float:
    """Return the height in inches of a heat map with a row for each layer."""
    return min(max(1.8, 1.1 + 0.12 * n_layers), 4.5)


def figure_of(ax: "Axes") -> "Figure":
    """Return the figure that axes are in."""
    from matplotlib.figure import Figure

    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)  # noqa: S101
    return figure
