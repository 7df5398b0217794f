"""The figure of how much of a layer's routing its most used experts take.

The function takes ``ax`` and a frame, draws, and returns ``ax``.
"""

from typing import TYPE_CHECKING

from moedb.queries.figures.parts.axes import GREY, few, layer_bar, layer_colours, legend_above
from moedb.queries.figures.parts.estimates.intervals import draw_band, draw_chance
from moedb.queries.figures.parts.figure import Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.grid import layers_of, rows_of_layer
from moedb.queries.figures.parts.layout import add_note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_concentration(result_df: "pd.DataFrame", ax: "Axes") -> "Axes":
    """Draw the share of decisions that the most used experts take, a line for each layer.

    A dashed line is the share if all experts of a layer were used equally often. The steps of x
    double: few experts take most decisions, and a third of the axis would hold them otherwise.

    Parameters
    ----------
    result_df
        The rows of ``concentration``.
    ax
        Where to draw.
    """
    import numpy as np
    from matplotlib.ticker import NullLocator

    require_columns(result_df, ("layer", "n_top", "share"))
    require_one_row(result_df, ("layer", "n_top"), "a layer and a number of experts")
    layers = layers_of(result_df)
    colours = layer_colours(layers)
    sizes = set()
    notes: list[str] = []
    for layer in layers:
        rows = rows_of_layer(result_df, layer).sort_values("n_top")
        tops, shares = rows["n_top"].to_numpy(float), rows["share"].to_numpy(float)
        colour = colours.to_rgba(np.array(layer))
        ax.plot(tops, shares, marker="o", markersize=2, color=colour, label=f"layer {layer}")
        notes += draw_band(ax, tops, rows, "share", colour)
        notes += draw_chance(ax, tops, rows, "share", colour)
        sizes.add(int(tops[-1]))
    for size in sorted(sizes):
        steps = sorted({int(top) for top in result_df["n_top"] if top <= size})
        label = "equal use" if size == max(sizes) else None
        uniform = [top / size for top in steps]
        ax.plot(steps, uniform, color=GREY, linewidth=0.8, linestyle="--", zorder=0, label=label)
    steps = sorted({int(top) for top in result_df["n_top"]})
    ax.set_xscale("log", base=2)
    ax.set_xticks(few(steps), [str(step) for step in few(steps)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("most used experts of the layer")
    ax.set_ylabel("share of routing decisions")
    ax.spines[["top", "right"]].set_visible(False)
    add_note(figure_of(ax), "; ".join(dict.fromkeys(notes)))
    if len(layers) == 1:
        legend_above(ax)
        return ax
    # the colours of the layers are explained by the bar
    for line in ax.lines:
        if str(line.get_label()).startswith("layer "):
            line.set_label(f"_{line.get_label()}")
    ax.legend(loc="upper left")
    layer_bar(ax, colours, layers)
    return ax


def _paint_concentration(frame: "pd.DataFrame") -> "Figure":
    figure = new_figure(2.2)
    plot_concentration(frame, figure.subplots())
    return figure


CONCENTRATION = Plot(
    "what share of a layer's decisions its most used experts take", _paint_concentration, {}
)
