"""The figure of what experts say of labels beyond clusters, and clusters beyond experts.

The function takes ``axes`` and a frame, draws, and returns the axes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import GREY, finish_layers
from moedb.queries.figures.parts.figure import TALLEST, Plot, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("experts_beyond", "I(label; expert given cluster)", {"color": "C0", "marker": "o"}),
    ("clusters_beyond", "I(label; cluster given expert)", {"color": "C1", "marker": "s"}),
)
_NUMBERS = ("null_mean", "null_95", "less_null", "low", "high")
_COLUMNS = ("layer", "key", *(f"{measure}_{end}" for measure, _, _ in _SERIES for end in _NUMBERS))
_NULL = "its 95 % point, labels shuffled"
_APART = 0.2
"""How far from a layer's place on x either series stands."""
_MOST_KEYS = 8


def plot_state_and_function(result_df: "pd.DataFrame", axes: "Sequence[Axes]") -> "Sequence[Axes]":
    """Draw by layer what either says beyond the other, a panel for each key.

    The mean of the shuffles is taken from all: from the estimates, from both ends of their
    intervals and from the 95 % point of the shuffles. Zero is what chance gives on average.

    Parameters
    ----------
    result_df
        The rows of ``state-and-function``, with shuffles.
    axes
        Where to draw, one for each key, in the order of the rows.
    """
    require_columns(result_df, _COLUMNS)
    require_one_row(result_df, ("layer", "key"), "a layer and a key")
    if result_df[[f"{measure}_null_mean" for measure, _, _ in _SERIES]].isna().any(axis=None):
        raise UsageError("without shuffles there is no null to draw", "-p permutations 200")
    for ax, key in zip(axes, _keys(result_df), strict=True):
        rows = result_df[result_df["key"] == key].sort_values("layer")
        _draw_key(rows, ax)
        finish_layers(ax, result_df["layer"].to_numpy(float), "bits")
        ax.set_title(shown_name(key))
    for ax in axes[:-1]:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    axes[-1].set_xlabel("layer (0: mean of the shuffles; bars: 95 % intervals)")
    return axes


def _draw_key(rows: "pd.DataFrame", ax: "Axes") -> None:
    import numpy as np

    for (measure, label, style), shift in zip(_SERIES, (-_APART, _APART), strict=True):
        mean, null_95, found, low, high = (
            rows[f"{measure}_{number}"].to_numpy(float) for number in _NUMBERS
        )
        at = rows["layer"].to_numpy(float) + shift
        # a row without an interval has no bar; an end may miss the estimate by rounding
        errors = np.maximum(np.nan_to_num([found + mean - low, high - found - mean]), 0.0)
        points: dict[str, Any] = {**style, "linestyle": "none", "markersize": 2.2}
        ax.errorbar(at, found, errors, elinewidth=0.6, label=label, **points)
        dash: dict[str, Any] = {"marker": "_", "markersize": 3, "linestyle": "none"}
        ax.plot(at, null_95 - mean, color=style["color"], label=_NULL, **dash)
    ax.axhline(0.0, color=GREY, linewidth=0.6, zorder=0)


def _keys(frame: "pd.DataFrame") -> list[str]:
    found = list(dict.fromkeys(frame["key"]))
    if len(found) > _MOST_KEYS:
        raise UsageError(
            f"{len(found)} keys are too many for one figure: {_MOST_KEYS} at most",
            "name some: -p keys KEY,KEY",
        )
    return found


def _paint(frame: "pd.DataFrame") -> "Figure":
    require_columns(frame, _COLUMNS)
    n_keys = len(_keys(frame))
    figure = new_figure(min(0.8 + (1.3 if n_keys == 1 else 1.0) * n_keys, TALLEST))
    axes = list(figure.subplots(n_keys, 1, squeeze=False)[:, 0])
    plot_state_and_function(frame, axes)
    handles, labels = axes[0].get_legend_handles_labels()
    order = [labels.index(_SERIES[0][1]), labels.index(_NULL)]
    order += [labels.index(_SERIES[1][1]), len(labels) - 1 - labels[::-1].index(_NULL)]
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside upper center",
        ncols=2,
    )
    return figure


STATE_AND_FUNCTION = Plot(
    "what experts say of labels beyond clusters of the router's input, and the other way round",
    _paint,
    {},
)
