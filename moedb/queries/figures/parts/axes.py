"""What figures with layers on an axis share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.figure import figure_of

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from numpy.typing import NDArray

GREY = "0.6"
"""The colour of a line at zero."""

MARKERS = "os^Dv<>P"
"""The markers of lines side by side."""


def few(layers: Sequence[int]) -> list[int]:
    """Return at most eight of the layers, evenly apart, for ticks."""
    step = max(1, -(-len(layers) // 8))
    return list(layers[::step])


def layer_colours(layers: Sequence[int]) -> "ScalarMappable":
    """Return the colours of lines of layers, dark to light; none so light that it is lost."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shown = mpl.colormaps[mpl.rcParams["image.cmap"]]([step / 255 * 0.9 for step in range(256)])
    return ScalarMappable(
        Normalize(layers[0], max(layers[-1], layers[0] + 1)), ListedColormap(shown)
    )


def layer_bar(ax: "Axes", colours: "ScalarMappable", layers: Sequence[int]) -> None:
    """Say beside the axes which line has the colour of which layer."""
    bar = figure_of(ax).colorbar(colours, ax=ax, aspect=25, pad=0.02)
    bar.set_label("layer")
    bar.set_ticks(few(layers))


def finish_layers(ax: "Axes", layers: "NDArray[np.floating[Any]]", label: str) -> None:
    """Put layers on x, and the label on y."""
    found = sorted({int(layer) for layer in layers})
    ax.set_xticks(few(range(found[0], found[-1] + 1)))
    ax.set_xlim(found[0] - 0.7, found[-1] + 0.4)
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(ax: "Axes", columns: int = 2) -> None:
    """Put a legend above the axes, where it covers nothing."""
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        handlelength=1.5,
        columnspacing=1.0,
    )
