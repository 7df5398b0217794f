"""What figures with layers on an axis share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

GREY = "0.6"
"""The colour of a line at zero."""

MARKERS = "os^Dv<>P"
"""The markers of lines side by side."""


def few(layers: Sequence[int]) -> list[int]:
    """Return at most eight of the layers, evenly apart, for ticks."""
    step = max(1, -(-len(layers) // 8))
    return list(layers[::step])


def finish_layers(ax: "Axes", layers: "NDArray[np.floating[Any]]", label: str) -> None:
    """Put layers on x, and the label on y."""
    found = sorted({int(layer) for layer in layers})
    ax.set_xticks(few(range(found[0], found[-1] + 1)))
    ax.set_xlim(found[0] - 0.7, found[-1] + 0.4)
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    ax.spines[["top", "right"]].set_visible(False)
