"""Figures of the logit lens: what the residual stream says after each layer.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import GREY, MARKERS, finish_layers
from moedb.queries.figures.parts.figure import Plot, height_of_layers, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import around_zero, heatmap, matrix_of
from moedb.queries.figures.predictions.interventions import series_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND = 0.2
_LENS_LABELS = {
    "mean_logit_diff": "logit difference",
    "share_ahead": "share of prompts ahead",
    "mean_logprob": "log-probability (nats)",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
}
_PLACES = {"mid": "after attention", "post": "after the layer"}
_LENS_EFFECT_LABELS = {
    "change_logit_diff": "change of logit difference",
    "mean_logit_diff": "logit difference",
}


def plot_logit_lens(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "mean_logit_diff"
) -> "Axes":
    """Draw what the residual stream says after each layer, with the interval as a band.

    Parameters
    ----------
    result_df
        The rows of ``logit-lens``.
    ax
        Where to draw.
    value
        ``mean_logit_diff``, the one with a band; ``share_ahead``, ``mean_logprob``,
        ``mean_rank`` or ``median_rank``.
    """
    check_value(value, _LENS_LABELS)
    require_columns(result_df, ("layer", "place", value))
    require_one_row(result_df, ("layer", "place"), "a place of a layer")
    band = f"{value}_low", f"{value}_high"
    first = result_df[result_df["place"] == "pre"]
    for number, (place, label) in enumerate(_PLACES.items()):
        rows = result_df[result_df["place"] == place].sort_values("layer")
        colour = f"C{number}"
        layers, values = rows["layer"].to_numpy(float), rows[value].to_numpy(float)
        ax.plot(layers, values, color=colour, marker=MARKERS[number], markersize=2.5, label=label)
        if set(band) <= set(rows):
            low, high = (rows[name].to_numpy(float) for name in band)
            ax.fill_between(layers, low, high, color=colour, alpha=_BAND, linewidth=0)
    if len(first):
        before = first["layer"].to_numpy(float) - 0.5
        values = first[value].to_numpy(float)
        errors = None
        if set(band) <= set(first):
            low, high = (first[name].to_numpy(float) for name in band)
            errors = [values - low, high - values]
        ax.errorbar(
            before,
            values,
            errors,
            fmt="D",
            color="black",
            markersize=2.5,
            elinewidth=0.6,
            label="embedding",
        )
    if value == "mean_logit_diff":
        ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    finish_layers(ax, result_df["layer"].to_numpy(float), _LENS_LABELS[value])
    ax.legend(loc="best")
    return ax


def plot_lens_effect(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "change_logit_diff"
) -> "Axes":
    """Draw what interventions at each layer change of the stream after each layer.

    Layers that were changed are on y, those after which the stream is read on x; a cell before the
    change is grey.

    Parameters
    ----------
    result_df
        The rows of ``lens-effect``, of one kind with one set of parameters.
    ax
        Where to draw.
    value
        ``change_logit_diff`` or ``mean_logit_diff``.
    """
    check_value(value, _LENS_EFFECT_LABELS)
    needed = ("kind", "params", "split", "layer", "expert", "read_layer", "place", value)
    require_columns(result_df, needed)
    at_one = result_df["layer"].notna() & result_df["expert"].isna()
    frame = result_df[at_one & (result_df["place"] == "post")]
    if frame.empty:
        raise UsageError(
            "no intervention on a whole layer was read after a layer",
            "the interventions: moedb query lens-effect",
        )
    names = series_names(frame)
    if names.nunique() > 1:
        raise UsageError(
            f"one figure shows one kind of intervention, not {names.nunique()}: "
            f"{', '.join(names.unique())}",
            "narrow it: -p kind KIND -p split SPLIT",
        )
    if frame.duplicated(["layer", "read_layer"]).any():
        raise UsageError(
            "more than one condition for a layer, such as several sets of experts",
            "name a run with one of them: --run RUN",
        )
    changed = sorted(int(layer) for layer in frame["layer"].unique())
    read = range(int(frame["read_layer"].min()), int(frame["read_layer"].max()) + 1)
    matrix = matrix_of(frame, ("layer", changed), ("read_layer", read), value)
    heatmap(ax, matrix, changed, read, _LENS_EFFECT_LABELS[value], **around_zero(matrix))
    ax.set_xlabel("read after layer")
    ax.set_ylabel("changed layer")
    ax.set_title(str(names.iloc[0]), fontsize=6, loc="left")
    return ax


def _paint_logit_lens(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.2)
    plot_logit_lens(frame, figure.subplots(), **options)
    return figure


def _paint_lens_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_lens_effect(frame, figure.subplots(), **options)
    return figure


LOGIT_LENS = Plot(
    "what the residual stream says after each layer", _paint_logit_lens, {"value": str}
)

LENS_EFFECT = Plot(
    "what interventions at each layer change of the residual stream after each layer",
    _paint_lens_effect,
    {"value": str},
)
