"""Heat maps: a matrix from the rows of a result, its colours, its colour bar, its labels."""

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from moedb.queries.figures.parts.figure import figure_of
from moedb.queries.figures.parts.frames import require_one_row

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

SCALE_QUANTILE = 0.995
"""A scale ends where 1 in 200 values lies above, lest a few darken all others."""

_MISSING = "0.85"
_POWERS_A_SIDE = 3
"""Powers of two on either side of 1 beside a colour bar of ratios, at most."""


class Colours(TypedDict, total=False):
    """How the values of a heat map become colours, as :func:`heatmap` takes it."""

    norm: "Normalize"
    cmap: str


def around_zero(matrix: "NDArray[np.floating[Any]]") -> Colours:
    """Return colours with zero in the middle, as far on either side as the largest value."""
    import numpy as np
    from matplotlib.colors import Normalize

    finite = np.abs(matrix[np.isfinite(matrix)])
    largest = float(finite.max()) if finite.size else 0.0
    return {"norm": Normalize(-(largest or 1.0), largest or 1.0), "cmap": "PuOr"}


def up_from_zero(values: "NDArray[np.floating[Any]]") -> Colours:
    """Return colours of values that are 0 or more, from 0 up to :data:`SCALE_QUANTILE` of them."""
    import numpy as np
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    largest = float(np.quantile(finite, SCALE_QUANTILE)) if finite.size else 1.0
    if largest <= 0:
        largest = float(finite.max()) or 1.0
    return {"norm": Normalize(0.0, largest)}


def between_values(values: "NDArray[np.floating[Any]]") -> Colours:
    """Return colours from the smallest value to the largest, of what does not begin at 0."""
    import numpy as np
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return {"norm": Normalize(low, high if high > low else low + 1.0)}


def around_one(values: "NDArray[np.floating[Any]]") -> Colours:
    """Return colours of ratios with 1 in the middle, on a logarithmic scale.

    Twice as many and half as many are as far from 1. The scale ends where 1 in 200 of the values
    lies beyond it, between 2 and 64 on one side, as far on the other; what lies beyond, such as 0,
    has the colour of its end.
    """
    import numpy as np
    from matplotlib.colors import LogNorm

    above = values[np.isfinite(values) & (values > 0)]
    folds = np.maximum(above, 1 / above)
    largest = float(np.quantile(folds, SCALE_QUANTILE)) if folds.size else 1.0
    largest = min(max(largest, 2.0), 64.0)
    return {"norm": LogNorm(1 / largest, largest, clip=True), "cmap": "PuOr"}


def matrix_of(
    frame: "pd.DataFrame",
    rows: tuple[str, Sequence[Hashable]],
    columns: tuple[str, Sequence[Hashable]],
    value: str,
) -> "NDArray[np.float64]":
    """Lay the values of a frame out as a matrix.

    Parameters
    ----------
    frame
        One row at most for each cell.
    rows, columns
        The column of the frame that says in which row or column of the matrix a value is, and the
        keys of these, in order.
    value
        The column with the values.

    Returns
    -------
    NDArray
        Shape (rows, columns), NaN where the frame has no row.
    """
    import numpy as np

    (row_key, row_names), (column_key, column_names) = rows, columns
    at_rows = frame[row_key].map({name: at for at, name in enumerate(row_names)})
    at_columns = frame[column_key].map({name: at for at, name in enumerate(column_names)})
    matrix = np.full((len(row_names), len(column_names)), np.nan)
    matrix[at_rows.to_numpy(int), at_columns.to_numpy(int)] = frame[value].to_numpy(float)
    return matrix


def layers_by_experts(
    frame: "pd.DataFrame", value: str
) -> "tuple[NDArray[np.float64], list[int], range]":
    """Return a matrix with a row for each layer and a column for each expert.

    Parameters
    ----------
    frame
        The columns layer, expert and ``value``.
    value
        The column with the values.

    Returns
    -------
    matrix
        Shape (layers, experts), NaN where the frame has no row.
    layers
        The layer of each row: those of the frame.
    experts
        The expert of each column: all up to the largest of the frame.

    Raises
    ------
    UsageError
        If an expert of a layer has several rows.
    """
    require_one_row(frame, ("layer", "expert"), "an expert of a layer")
    layers = sorted(int(layer) for layer in frame["layer"].unique())
    experts = range(int(frame["expert"].max()) + 1)
    return matrix_of(frame, ("layer", layers), ("expert", experts), value), layers, experts


def heatmap(
    ax: "Axes",
    matrix: "np.ndarray[Any, Any]",
    row_labels: Sequence[object],
    column_labels: Sequence[object],
    colour_label: str | None,
    *,
    norm: "Normalize | None" = None,
    cmap: str | None = None,
    missing: str = _MISSING,
) -> "Axes":
    """Draw a matrix, rows from the top.

    Parameters
    ----------
    ax
        Where to draw.
    matrix
        Shape (rows, columns). NaN is drawn in the colour ``missing``: there is no such cell.
    row_labels, column_labels
        Their names; as many ticks as there is room for carry one.
    colour_label
        The label of the colour bar, with the unit. Without it there is no colour bar.
    norm
        How values become colours; from 0 to the largest value unless given.
    cmap
        The name of a colour map, the style's unless given.
    missing
        The colour of NaN; grey unless given.

    Returns
    -------
    Axes
        The same ``ax``.
    """
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import Normalize

    if norm is None:
        finite = matrix[np.isfinite(matrix)]
        norm = Normalize(0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    colours = mpl.colormaps[cmap or mpl.rcParams["image.cmap"]].with_extremes(bad=missing)
    image = ax.imshow(matrix, aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    _label_ticks(ax, row_labels, column_labels)
    if colour_label is not None:
        _colour_bar(ax, image, colour_label)
    return ax


def _label_ticks(ax: "Axes", rows: Sequence[object], columns: Sequence[object]) -> None:
    """Label as many rows and columns as there is room for, at even steps."""
    width, height = _size_in_inches(ax)
    for axis, labels, room in ((ax.xaxis, columns, width * 6), (ax.yaxis, rows, height * 8)):
        step = _tick_step(len(labels), max(2, int(room)))
        places = range(0, len(labels), step)
        axis.set_ticks(list(places), [str(labels[place]) for place in places])


def _size_in_inches(ax: "Axes") -> tuple[float, float]:
    box = ax.get_position()
    width, height = figure_of(ax).get_size_inches()
    return float(box.width * width), float(box.height * height)


def _tick_step(n: int, room: int) -> int:
    for scale in (1, 10, 100, 1000, 10_000, 100_000):
        for step in (1, 2, 5):
            if math.ceil(n / (step * scale)) <= room:
                return step * scale
    return n


def _colour_bar(ax: "Axes", image: "AxesImage", label: str) -> None:
    bar = figure_of(ax).colorbar(image, ax=ax, aspect=25, pad=0.02, extend=bar_ends(image))
    colour_bar(bar, label)


def colour_bar(bar: "Colorbar", label: str) -> None:
    """Finish a colour bar: its label, and beside ratios 1 and powers of two."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if isinstance(bar.norm, LogNorm):
        farthest = int(math.log2(bar.norm.vmax or 1.0))
        step = math.ceil(farthest / _POWERS_A_SIDE) or 1
        powers = range(-(farthest // step) * step, farthest + 1, step)
        bar.ax.yaxis.set_major_locator(FixedLocator([2.0**power for power in powers]))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _as_ratio(value)))
    bar.set_label(label)


def _as_ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 1 else f"1/{1 / value:.0f}"


def bar_ends(image: "AxesImage") -> str:
    """Return which ends of the colour bar get an arrow, as values lie beyond the scale."""
    import numpy as np

    values: Any = np.ma.masked_invalid(np.ma.asarray(image.get_array()))
    bottom, top = image.norm.vmin, image.norm.vmax
    if not values.count() or bottom is None or top is None:
        return "neither"
    below, above = values.min() < bottom, values.max() > top
    return "both" if below and above else "min" if below else "max" if above else "neither"
