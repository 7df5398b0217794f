"""A figure of the right size, and what describes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALLEST = 8.5
"""The height of a page, in inches."""

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
    """

    title: str
    paint: "Callable[..., Figure]"
    options: Mapping[str, Callable[[Any], Any]]


def new_figure(height: float, width: float | None = None) -> "Figure":
    """Return a figure as wide as a column, unless its width is given."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    return Figure(figsize=(width or mpl.rcParams["figure.figsize"][0], height))


def height_of_layers(n_layers: int) -> float:
    """Return the height in inches of a heat map with a row for each layer."""
    return min(max(1.8, 1.1 + 0.12 * n_layers), 4.5)


def figure_of(ax: "Axes") -> "Figure":
    """Return the figure that axes are in."""
    from matplotlib.figure import Figure

    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)  # noqa: S101
    return figure
