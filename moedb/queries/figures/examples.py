"""The figure of ``routing-by-example``: which experts are active, prompt by prompt.

Examples are rows and the experts of all layers are columns. Where the columns are too many for the
width of a page, the layers are shared out over bands, one below the other.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from moedb.errors import UsageError
from moedb.queries.figures.parts.figure import TALLEST, TWO_COLUMNS, Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import SCALE_QUANTILE, bar_ends, heatmap, matrix_of
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_LABELS = {"weight": "weight", "share": "share of tokens that chose the expert"}
_COLUMNS = ("split", "key", "value", "example_id", "layer", "expert", "n_experts")
_COLOURS = "cividis_r"
_NOT_CHOSEN = "white"
_NO_LAYER = "0.85"
_BAR_WIDTH = 0.1
"""In inches."""

_COLUMNS_OF_BAND = 480
_MOST_BANDS = 6
# where a column, or a row of all bands, is less than a pixel of a PNG
_MOST_COLUMNS, _MOST_ROWS = 1700, 2400
_LABELS_PER_INCH = {"x": 6, "y": 8}


def bands_of(result_df: "pd.DataFrame") -> list[list[int]]:
    """Return the layers of each band, as evenly shared out as goes.

    Raises
    ------
    UsageError
        If a band has more experts than a page has room for.
    """
    require_columns(result_df, _COLUMNS)
    widths = _widths(result_df)
    layers = sorted(widths)
    n_bands = min(len(layers), math.ceil(sum(widths.values()) / _COLUMNS_OF_BAND), _MOST_BANDS)
    size = math.ceil(len(layers) / n_bands)
    bands = [layers[start : start + size] for start in range(0, len(layers), size)]
    widest = max(sum(widths[layer] for layer in band) for band in bands)
    if widest > _MOST_COLUMNS:
        raise UsageError(
            f"{widest} experts side by side are too many for one figure: {_MOST_COLUMNS} at most",
            "narrow it: -p layer LAYER",
        )
    return bands


def plot_routing_by_example(
    result_df: "pd.DataFrame",
    ax: "Axes",
    *,
    value: str = "weight",
    layers: Sequence[int] | None = None,
    norm: "Normalize | None" = None,
) -> "Axes":
    """Draw which experts each example is routed to. What it did not choose is white.

    Parameters
    ----------
    result_df
        The rows of ``routing-by-example``. The examples come in their order, with a line between
        those of one value of the label and the next.
    ax
        Where to draw.
    value
        ``weight`` or ``share``.
    layers
        These layers alone, side by side; all unless given.
    norm
        How values become colours. Without it a scale that ends where 1 in 200 values lies above,
        and a colour bar.
    """
    import numpy as np

    _check(result_df, value)
    widths = _widths(result_df)
    shown = sorted(widths) if layers is None else list(layers)
    starts = dict(zip(shown, np.cumsum([0, *(widths[layer] for layer in shown)]), strict=False))
    examples = result_df[["split", "key", "value", "example_id"]].drop_duplicates("example_id")
    own = result_df[result_df["layer"].isin(shown)]
    rows = "example_id", list(examples["example_id"])
    columns = "place", range(sum(widths[layer] for layer in shown))
    matrix = matrix_of(
        own.assign(place=own["layer"].map(starts) + own["expert"]), rows, columns, value
    )

    label = _LABELS[value] if norm is None else None
    scale = _scale(result_df, value) if norm is None else norm
    experts = range(widths[shown[0]]) if len(shown) == 1 else ()
    heatmap(ax, matrix, (), experts, label, norm=scale, cmap=_COLOURS, missing=_NOT_CHOSEN)
    _mark_layers(ax, shown, widths)
    _mark_groups(ax, examples, matrix.shape[1])
    return ax


def plot_routing_by_example_bands(
    result_df: "pd.DataFrame", figure: "Figure", *, value: str = "weight"
) -> "list[Axes]":
    """Draw :func:`plot_routing_by_example` for each band of layers, on one scale of colours.

    Parameters
    ----------
    result_df
        The rows of ``routing-by-example``.
    figure
        An empty figure.
    value
        ``weight`` or ``share``.

    Returns
    -------
    list of Axes
        One for each band.
    """
    _check(result_df, value)
    bands = bands_of(result_df)
    norm = _scale(result_df, value)
    axes = list(figure.subplots(len(bands), 1, squeeze=False).flat)
    for ax, layers in zip(axes, bands, strict=True):
        plot_routing_by_example(result_df, ax, value=value, layers=layers, norm=norm)
    # a band with fewer layers has columns as wide as the others
    widest = max(ax.get_xlim()[1] for ax in axes)
    crowded = result_df["example_id"].nunique() * len(bands) > _MOST_ROWS
    for ax in axes:
        ax.set_xlim(-0.5, widest)
        ax.set_facecolor(_NO_LAYER)
        if ax is not axes[-1]:
            ax.set_xlabel("")
        if crowded:
            ax.images[0].set_interpolation("auto")
    ends = "max" if any(bar_ends(ax.images[0]) == "max" for ax in axes) else "neither"
    thin = figure.get_size_inches()[1] / _BAR_WIDTH
    bar = figure.colorbar(axes[0].images[0], ax=axes, aspect=thin, pad=0.01, extend=ends)
    bar.set_label(_LABELS[value])
    return axes


def _check(result_df: "pd.DataFrame", value: str) -> None:
    check_value(value, _LABELS)
    require_columns(result_df, (*_COLUMNS, value))
    require_one_row(result_df, ("example_id", "layer", "expert"), "an example and an expert")


def _widths(result_df: "pd.DataFrame") -> dict[int, int]:
    """The number of experts of each layer."""
    widths = result_df.groupby("layer")["n_experts"].max()
    return dict(zip(widths.index.astype(int).tolist(), widths.astype(int).tolist(), strict=True))


def _scale(result_df: "pd.DataFrame", value: str) -> "Normalize":
    from matplotlib.colors import Normalize

    top = float(result_df[value].quantile(SCALE_QUANTILE))
    return Normalize(0.0, top if top > 0 else 1.0)


def _mark_layers(ax: "Axes", layers: Sequence[int], widths: dict[int, int]) -> None:
    """Number the layers below the middle of each, with lines between; experts where it is one."""
    if len(layers) == 1:
        ax.set_xlabel("expert")
        ax.set_title(f"layer {layers[0]}")
        return
    start, middles = 0, []
    for layer in layers:
        if start:
            ax.axvline(start - 0.5, color="black", linewidth=0.5)
        middles.append(start + (widths[layer] - 1) / 2)
        start += widths[layer]
    _name(ax, "x", middles, [str(layer) for layer in layers])
    sizes = {widths[layer] for layer in layers}
    experts = f"experts 0 to {sizes.pop() - 1}" if len(sizes) == 1 else "its experts"
    ax.set_xlabel(f"layer, and in each {experts}")


def _mark_groups(ax: "Axes", examples: "pd.DataFrame", width: int) -> None:
    """Name the groups of examples with one label, beside the middle of each, lines between."""
    several = examples["split"].nunique() > 1
    named = [
        None if missing else str(value)
        for value, missing in zip(examples["value"], examples["value"].isna(), strict=True)
    ]
    start, middles, names = 0, [], []
    before = None
    for (split, value), members in groupby(zip(examples["split"], named, strict=True)):
        size = len(list(members))
        if start:
            colour, line = ("0.6", 0.3) if split == before else ("black", 0.8)
            ax.hlines(start - 0.5, -0.5, width - 0.5, color=colour, linewidth=line)
        words = [split if several else "", value or ""]
        names.append(_plain(" ".join(word for word in words if word)))
        middles.append(start + (size - 1) / 2)
        start, before = start + size, split
    key = _plain(examples["key"].iloc[0]) if any(named) else ""
    ax.set_ylabel(f"example, by {key}" if key else "example")
    _name(ax, "y", middles, names)


def _name(ax: "Axes", side: Literal["x", "y"], places: list[float], names: list[str]) -> None:
    """Write names without ticks beside an axis, as many as there is room for at even steps."""
    box, (width, height) = ax.get_position(), figure_of(ax).get_size_inches()
    room = box.width * width if side == "x" else box.height * height
    step = math.ceil(len(names) / max(2, int(room * _LABELS_PER_INCH[side])))
    axis = ax.xaxis if side == "x" else ax.yaxis
    axis.set_ticks(places[::step], names[::step])
    axis.set_tick_params(length=0)


def _plain(text: str) -> str:
    return visible(text).replace("$", r"\$")


def _paint_routing_by_example(frame: "pd.DataFrame", **options: Any) -> "Figure":
    n_bands = len(bands_of(frame))
    # three pixels of a PNG to an example, where the page is long enough
    band = max(1.0, 0.01 * frame["example_id"].nunique()) + 0.35
    figure = new_figure(min(n_bands * band, TALLEST))
    plot_routing_by_example_bands(frame, figure, **options)
    return figure


ROUTING_BY_EXAMPLE = Plot(
    "which experts each example is routed to",
    _paint_routing_by_example,
    {"value": str},
    TWO_COLUMNS,
)
