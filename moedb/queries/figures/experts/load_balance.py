"""The figure of how evenly decisions are spread over a layer's experts.

The functions take an empty figure or ``ax``, and a frame.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.axes import GREY, finish_layers, legend_above
from moedb.queries.figures.parts.estimates.intervals import ASIDE, draw_bars, draw_chance
from moedb.queries.figures.parts.figure import Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.layout import add_note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Series = Mapping[str, tuple[str, Mapping[str, Any]]]
"""For each column its name in the legend, and how its line looks."""

_LABELS = {
    "effective_experts": "effective experts",
    "normalized_entropy": "entropy of shares over log2 E",
    "gini": "Gini coefficient",
    "cv": "sd over mean of decisions",
    "max_over_mean": "decisions of the most used\nexpert over the mean",
    "switch_loss": "load balancing loss",
    "n_dead": "experts never chosen",
}
_EVEN = {
    "normalized_entropy": 1.0,
    "gini": 0.0,
    "cv": 0.0,
    "max_over_mean": 1.0,
    "switch_loss": 1.0,
}
"""What even use gives."""
_COUNTS: _Series = {
    "n_experts": ("experts", {"color": "black", "linestyle": "--", "linewidth": 0.8, "zorder": 3}),
    "n_used": ("chosen at least once", {"marker": "s"}),
    "effective_experts": ("effective: 2 to the entropy", {"marker": "o"}),
}
_EVENNESS: _Series = {
    "normalized_entropy": ("entropy over log2 E (even: 1)", {"marker": "o"}),
    "gini": ("Gini coefficient (even: 0)", {"marker": "s"}),
}


def plot_load_balance(result_df: "pd.DataFrame", figure: "Figure") -> "list[Axes]":
    """Draw by layer how many experts are used, and below it how evenly.

    Parameters
    ----------
    result_df
        The rows of ``load-balance``.
    figure
        An empty figure.

    Returns
    -------
    list of Axes
        Numbers of experts; entropy and Gini coefficient.
    """
    require_columns(result_df, ("layer", *_COUNTS, *_EVENNESS))
    require_one_row(result_df, ("layer",), "a layer")
    frame = result_df.sort_values("layer")
    layers = frame["layer"].to_numpy(float)
    axes = list(figure.subplots(2, 1))
    parts = (_COUNTS, _EVENNESS), ("number of experts", "index (0 to 1)")
    notes: list[str] = []
    for ax, series, label in zip(axes, *parts, strict=True):
        for number, (column, (name, style)) in enumerate(series.items()):
            shown = {"color": f"C{number}", "markersize": 2.5, **style}
            ax.plot(layers, frame[column].to_numpy(float), label=name, **shown)
            notes += draw_bars(ax, layers, frame, column, shown["color"])
            notes += draw_chance(ax, layers + ASIDE, frame, column, shown["color"])
        finish_layers(ax, layers, label)
        legend_above(ax, 2 if ax is axes[1] else 3)
    axes[0].set_ylim(0, 1.05 * float(frame["n_experts"].max()))
    axes[0].set_xlabel("")
    axes[1].set_ylim(0.0, 1.05)
    add_note(figure, "; ".join(dict.fromkeys(notes)))
    return axes


def plot_load_balance_measure(result_df: "pd.DataFrame", ax: "Axes", *, value: str) -> "Axes":
    """Draw one measure by layer, with a dashed line where even use would be.

    Parameters
    ----------
    result_df
        The rows of ``load-balance``.
    ax
        Where to draw.
    value
        ``effective_experts``, ``normalized_entropy``, ``gini``, ``cv``, ``max_over_mean``,
        ``switch_loss`` or ``n_dead``.
    """
    check_value(value, _LABELS)
    require_columns(result_df, ("layer", "n_experts", value))
    require_one_row(result_df, ("layer",), "a layer")
    frame = result_df.sort_values("layer")
    layers = frame["layer"].to_numpy(float)
    if value == "effective_experts":
        ax.plot(layers, frame["n_experts"].to_numpy(float), color=GREY, linestyle="--", zorder=0)
    elif value in _EVEN:
        ax.axhline(_EVEN[value], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    ax.plot(layers, frame[value].to_numpy(float), marker="o", markersize=2.5)
    notes = draw_bars(ax, layers, frame, value, "C0")
    notes += draw_chance(ax, layers + ASIDE, frame, value, "C0")
    finish_layers(ax, layers, _LABELS[value])
    if value != "n_dead":
        ax.set_title("dashed: even use", loc="right", fontsize=6)
    add_note(figure_of(ax), "; ".join(notes))
    return ax


def _paint_load_balance(frame: "pd.DataFrame", value: str | None = None) -> "Figure":
    if value is None:
        figure = new_figure(3.2)
        plot_load_balance(frame, figure)
        return figure
    figure = new_figure(2.0)
    plot_load_balance_measure(frame, figure.subplots(), value=value)
    return figure


LOAD_BALANCE = Plot(
    "how evenly a layer's decisions are spread over its experts",
    _paint_load_balance,
    {"value": str},
)
