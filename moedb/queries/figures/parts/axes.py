"""What figures with layers on an axis share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

GREY = "0.6"
"""The colour of a line at zero."""

MARKERS = "os^Dv<>P"
"""The markers of lines side by side."""


class Colours(TypedDict, total=False):
    """How the values of a heat map become colours, as :func:`~.heatmaps.heatmap` takes it."""

    norm: "Normalize"
    cmap: str


def check_value(value: str, labels: Mapping[str, str]) -> None:
    """Refuse a value that a figure has no label for."""
    if value not in labels:
        raise UsageError(f"no value {value!r}", did_you_mean(value, labels))


def around_zero(matrix: "NDArray[np.floating[Any]]") -> Colours:
    """Return colours with zero in the middle, as far on either side as the largest value."""
    import numpy as np
    from matplotlib.colors import Normalize

    finite = np.abs(matrix[np.isfinite(matrix)])
    largest = float(finite.max()) if finite.size else 0.0
    return {"norm": Normalize(-(largest or 1.0), largest or 1.0), "cmap": "PuOr"}


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
