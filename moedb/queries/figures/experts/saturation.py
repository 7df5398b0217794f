"""The figure of how many of a token's experts two runs share, such as checkpoints and the last one.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import (
    GREY,
    few,
    finish_layers,
    layer_bar,
    layer_colours,
    legend_above,
)
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.grid import layers_of, rows_of_layer
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "saturation": "experts in common (share of k)",
    "first_saturation": "first expert in common\n(share of tokens)",
}
_MOST_CHARACTERS = 36
"""Of the names of runs that stand side by side."""


def plot_saturation(result_df: "pd.DataFrame", ax: "Axes", *, value: str = "saturation") -> "Axes":
    """Draw how much runs agree with another one: of one run by layer, of several by run.

    Of several a line is a layer, and on x is the label that tells them apart, as a number where it
    is one; without a label their names, in the order given. Dashed is what two routers that choose
    at random share.

    Parameters
    ----------
    result_df
        The rows of ``saturation``, of one run or of several.
    ax
        Where to draw.
    value
        ``saturation``, or ``first_saturation`` of the first-ranked expert alone.
    """
    check_value(value, _LABELS)
    require_columns(result_df, ("layer", "top_k", "uniform", value))
    if result_df[value].isna().all():
        raise UsageError("the two runs have no token in common")
    uniform = result_df["uniform"]
    chance = uniform if value == "saturation" else uniform / result_df["top_k"]
    for number, level in enumerate(sorted(set(chance))):
        label = "_" if number else "routers that choose at random"
        ax.axhline(level, color=GREY, linestyle="--", linewidth=0.8, zorder=0, label=label)
    if "run" in result_df:
        _draw_runs(result_df, ax, value)
    else:
        require_one_row(result_df, ("layer",), "a layer")
        frame = result_df.sort_values("layer")
        layers, found = frame["layer"].to_numpy(float), frame[value].to_numpy(float)
        ax.plot(layers, found, marker="o", markersize=2.5)
        finish_layers(ax, layers, _LABELS[value])
    ax.set_ylabel(_LABELS[value])
    ax.set_ylim(0.0, 1.03)
    ax.spines[["top", "right"]].set_visible(False)
    legend_above(ax)
    return ax


def _draw_runs(frame: "pd.DataFrame", ax: "Axes", value: str) -> None:
    """A line for each layer, over runs in the order of the rows."""
    import numpy as np

    by = _key(frame)
    require_one_row(frame, (by, "layer"), f"a layer and a {by}", "tell the runs apart: --by KEY")
    is_number = _is_number(frame[by])
    named = list(dict.fromkeys(frame[by]))
    at = named if is_number else range(len(named))
    places = dict(zip(named, at, strict=True))
    layers = layers_of(frame)
    colours = layer_colours(layers)
    for layer in layers:
        rows = rows_of_layer(frame, layer)
        ax.plot(
            [places[name] for name in rows[by]],
            rows[value].to_numpy(float),
            marker="o",
            markersize=2,
            color=colours.to_rgba(np.array(layer)),
            label=f"layer {layer}" if len(layers) == 1 else f"_layer {layer}",
        )
    if not is_number:
        names = [shown_name(name) for name in named]
        shown = few(range(len(names)))
        is_wide = sum(len(names[place]) for place in shown) > _MOST_CHARACTERS
        ax.set_xticks(shown, [names[place] for place in shown], rotation=90 if is_wide else 0)
    ax.set_xlabel(shown_name(by))
    if len(layers) > 1:
        layer_bar(ax, colours, layers)


def _key(frame: "pd.DataFrame") -> str:
    """The column that tells runs apart: the label that stands beside them, or their names."""
    beside = next(str(name) for name in frame.columns if name != "run")
    return "run" if beside == "layer" else beside


def _is_number(column: "pd.Series[Any]") -> bool:
    return column.dtype.kind in "if"


def _paint_saturation(frame: "pd.DataFrame", **options: Any) -> "Figure":
    # names of runs take room below
    figure = new_figure(2.2 if "run" not in frame or _is_number(frame[_key(frame)]) else 2.8)
    plot_saturation(frame, figure.subplots(), **options)
    return figure


SATURATION = Plot(
    "how many of a token's experts are the same in another run, by layer or over several runs",
    _paint_saturation,
    {"value": str},
    over_runs=True,
)
