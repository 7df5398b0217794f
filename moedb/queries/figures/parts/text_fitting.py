"""Text that fits into a heat map: names, labels of the axes, numbers in the cells."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_NAME_LENGTH = 16
_POINTS = 72
_VALUE_SIZES = (6.0, 5.0, 4.5)
_LINE = 1.15
_OF_DOTS = 2.5
"""Points of a cell's height that a dot in its corner takes from the value."""
_DIGIT = re.compile(r"\d")
_LUMINANCE = (0.299, 0.587, 0.114)


def shown_name(value: object, length: int = _NAME_LENGTH) -> str:
    r"""Return a name as matplotlib can draw it, cut where it is long.

    Examples
    --------
    >>> shown_name("a name of many characters"), shown_name("$5")
    ('a name of many …', '\\$5')
    """
    text = visible(str(value))
    if len(text) > length:
        text = text[: length - 1] + "…"
    return text.replace("$", r"\$")


def fit_text(
    figure: "Figure", axes: "Sequence[Axes]", number_format: str, with_dots: bool = False
) -> None:
    """Turn or thin the labels that would overlap, and print the values if the cells hold them.

    Parameters
    ----------
    figure
        The figure, at its size and with all else drawn.
    axes
        Its heat maps, each with a label for every row and column.
    number_format
        How a value is printed, such as ``.2f``.
    with_dots
        Whether corners of cells get dots, which values keep off.
    """
    for ax in axes:
        _turn_wide_labels(figure, ax)
    figure.draw_without_rendering()
    cells = [cell_in_points(figure, ax) for ax in axes]
    for ax, (width, height) in zip(axes, cells, strict=True):
        _thin_labels(ax, width, height)
        _print_values(ax, number_format, width, height - with_dots * _OF_DOTS)


def cell_in_points(figure: "Figure", ax: "Axes") -> tuple[float, float]:
    """Return the width and the height of a heat map's cell, in a figure that is laid out."""
    box = ax.get_window_extent()
    n_rows, n_columns = ax.images[0].get_array().shape[:2]  # type: ignore[union-attr]
    return (
        box.width / figure.dpi * _POINTS / n_columns,
        box.height / figure.dpi * _POINTS / n_rows,
    )


def _text_width(texts: "Sequence[str]", size: float) -> float:
    """The width of the widest text, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    properties = FontProperties(size=size)
    return max(
        (TextPath((0, 0), text, prop=properties).get_extents().width for text in texts if text),
        default=0.0,
    )


def _turn_wide_labels(figure: "Figure", ax: "Axes") -> None:
    labels = [label.get_text() for label in ax.get_xticklabels()]
    if all(label.isdigit() for label in labels):
        return
    room = ax.get_position().width * figure.get_figwidth() * _POINTS / max(len(labels), 1)
    if _text_width(labels, _label_size()) > 0.8 * room:
        ax.tick_params(axis="x", rotation=90)


def _label_size() -> float:
    import matplotlib as mpl

    return float(mpl.rcParams["xtick.labelsize"])


def _thin_labels(ax: "Axes", width: float, height: float) -> None:
    size = _label_size()
    names = [label.get_text() for label in ax.get_xticklabels()]
    turned = any(label.get_rotation() for label in ax.get_xticklabels())
    needs = size * _LINE if turned else _text_width(names, size) + 0.6 * size
    for axis, room, need in ((ax.xaxis, width, needs), (ax.yaxis, height, size * _LINE)):
        step = math.ceil(need / room)
        if step > 1:
            labels = [label.get_text() for label in axis.get_ticklabels()]
            places = range(0, len(labels), step)
            axis.set_ticks(list(places), [labels[place] for place in places])


def _print_values(ax: "Axes", number_format: str, width: float, height: float) -> None:
    """Print the value into each cell, at the largest size that fits all of them, or not at all."""
    import numpy as np

    image = ax.images[0]
    matrix = np.ma.filled(image.get_array(), np.nan)  # type: ignore[arg-type]
    cells = np.argwhere(np.isfinite(matrix))
    texts = [f"{matrix[row, column]:z{number_format}}" for row, column in cells]
    # all digits are equally wide
    widest = sorted({_DIGIT.sub("0", text) for text in texts})
    fitting = [
        size
        for size in _VALUE_SIZES
        if _text_width(widest, size) <= 0.9 * width and size * _LINE <= height
    ]
    if not fitting:
        return
    dark = dark_cells(ax)
    for (row, column), text in zip(cells, texts, strict=True):
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=fitting[0],
            color="white" if dark[row, column] else "black",
        )


def dark_cells(ax: "Axes") -> "NDArray[np.bool_]":
    """(row, column): whether what is drawn into a cell of a heat map is white rather than black."""
    import numpy as np

    image = ax.images[0]
    matrix = np.ma.filled(image.get_array(), np.nan)  # type: ignore[arg-type]
    is_dark: NDArray[np.bool_] = (
        np.asarray(image.cmap(image.norm(matrix)))[..., :3] @ _LUMINANCE < 0.5
    )
    return is_dark
