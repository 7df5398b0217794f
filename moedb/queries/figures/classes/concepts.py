"""Figures of concepts: how well each is told at best, and how many a single neuron tells.

The functions take axes and a frame, draw, and return the axes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import few, layer_colours
from moedb.queries.figures.parts.estimates.rows_of_points import (
    ALWAYS_YES,
    MOST_NAMED,
    OTHER,
    Points,
    draw_points,
    height_of_rows,
    legend_of_points,
    name_rows,
)
from moedb.queries.figures.parts.figure import Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.grid import layers_of
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_F1 = Points(
    "f1",
    "f1_low",
    "f1_high",
    "chosen, with its 95 % interval",
    (
        ("f1_always_yes", "always yes", ALWAYS_YES),
        ("f1_shuffled", "chosen, labels shuffled", OTHER),
    ),
)
_NARROW = "narrow it: -p probe NAME -p k 1"
_NAME_LENGTH = 26


def plot_probe_best(result_df: "pd.DataFrame", axes: "Sequence[Axes]") -> "Sequence[Axes]":
    """Draw how well each concept is told by what is chosen for it, a panel for each protocol.

    Concepts are ordered by the F1 of the first panel, the largest on top.

    Parameters
    ----------
    result_df
        The rows of ``probe-best``, of the probes of one name and size.
    axes
        Where to draw, one for each protocol.
    """
    require_columns(result_df, ("probe", "key", "value", "protocol", "k", *_F1.columns))
    if len(result_df[["probe", "k"]].drop_duplicates()) > 1:
        raise UsageError("the probes have several names or sizes; a figure is of one", _NARROW)
    require_one_row(
        result_df, ("key", "value", "protocol"), "a concept and a protocol", "narrow it to one run"
    )
    protocols, concepts = _protocols(result_df), _concepts(result_df)
    for ax, protocol in zip(axes, protocols, strict=True):
        rows = result_df[result_df["protocol"] == protocol]
        named = zip(rows["key"], rows["value"], strict=True)
        draw_points(ax, rows, _F1, [concepts.index(concept) for concept in named])
        ax.set_title(protocol)
        ax.set_xlabel("F1 on test")
    with_keys = len({key for key, _ in concepts}) > 1
    name_rows(axes[0], [_name(key, value, with_keys) for key, value in concepts])
    return axes


def _name(key: str, value: str, with_keys: bool) -> str:
    if value == "yes":
        return shown_name(key, _NAME_LENGTH)
    return shown_name(f"{key}={value}" if with_keys else value, _NAME_LENGTH)


def _protocols(frame: "pd.DataFrame") -> list[str]:
    return sorted(set(frame["protocol"]))


def _concepts(frame: "pd.DataFrame") -> list[tuple[str, str]]:
    first, *others = _protocols(frame)
    found: list[tuple[str, str]] = []
    for protocol in (first, *others):
        rows = frame[frame["protocol"] == protocol]
        rows = rows.sort_values(["f1", "key", "value"], ascending=[False, True, True])
        found += zip(rows["key"], rows["value"], strict=True)
    return list(dict.fromkeys(found))


def plot_polysemanticity(result_df: "pd.DataFrame", ax: "Axes") -> "Axes":
    """Draw how many neurons tell one concept, two, and more, with the layers on each other.

    Parameters
    ----------
    result_df
        The rows of ``polysemanticity``, of the probes of one name.
    ax
        Where to draw.
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    neuron = ("layer", "candidate", "neuron")
    require_columns(result_df, ("probe", *neuron, "n_concepts"))
    require_one_row(result_df, neuron, "a neuron", "narrow it: -p probe NAME")
    layers = layers_of(result_df)
    colours = layer_colours(layers)
    most = int(result_df["n_concepts"].max())
    below = np.zeros(most)
    for layer in layers:
        told = result_df[result_df["layer"] == layer]["n_concepts"].to_numpy(int)
        heights = np.bincount(told, minlength=most + 1)[1:]
        colour = colours.to_rgba(np.array(layer))
        ax.bar(range(1, most + 1), heights, 0.8, below, color=colour, label=f"layer {layer}")
        below += heights
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlim(0.4, most + 0.6)
    ax.set_xlabel("concepts that a neuron tells")
    ax.set_ylabel("neurons")
    ax.spines[["top", "right"]].set_visible(False)
    bar = figure_of(ax).colorbar(colours, ax=ax, aspect=25, pad=0.02)
    bar.set_label("layer")
    bar.set_ticks(few(layers))
    return ax


def _paint_best(frame: "pd.DataFrame") -> "Figure":
    require_columns(frame, ("protocol", "key", "value", "f1"))
    n_concepts = len(_concepts(frame))
    if n_concepts > MOST_NAMED:
        raise UsageError(
            f"{n_concepts} concepts are too many for one figure: {MOST_NAMED} at most",
            "name a key: -p key KEY",
        )
    figure = new_figure(height_of_rows(n_concepts))
    axes = figure.subplots(1, len(_protocols(frame)), sharey=True, squeeze=False)[0]
    plot_probe_best(frame, list(axes))
    legend_of_points(figure, axes[0])
    return figure


def _paint_polysemanticity(frame: "pd.DataFrame") -> "Figure":
    figure = new_figure(2.2)
    plot_polysemanticity(frame, figure.subplots())
    return figure


PROBE_BEST = Plot(
    "how well each concept is told by what is chosen for it, beside chance", _paint_best, {}
)
POLYSEMANTICITY = Plot(
    "how many concepts single neurons tell, by layer", _paint_polysemanticity, {}
)
