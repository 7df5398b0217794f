"""Figures of the experts that carry an answer: what they write, and what ablating them changes.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.analyses.predictions.conditions import describe
from moedb.queries.analyses.predictions.expert_effect import correlations_of
from moedb.queries.figures.parts.axes import GREY, few
from moedb.queries.figures.parts.figure import Plot, figure_of, height_of_layers, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns
from moedb.queries.figures.parts.heatmap import around_zero, heatmap, layers_by_experts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_ATTRIBUTION_LABELS = {
    "attribution": "logit difference written",
    "attribution_per_use": "logit difference, per use",
}
_EFFECT_OVER = {
    "attribution": "logit difference written (attribution)",
    "frequency": "frequency (share of tokens)",
}


def plot_expert_attribution(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "attribution"
) -> "Axes":
    """Draw what each expert of each layer writes into the logit difference.

    Parameters
    ----------
    result_df
        The rows of ``expert-attribution`` at level experts.
    ax
        Where to draw.
    value
        ``attribution`` (mean over all prompts) or ``attribution_per_use``, where an expert that
        is never used is grey.
    """
    check_value(value, _ATTRIBUTION_LABELS)
    require_columns(result_df, ("component", "layer", "expert", value))
    rows = result_df[result_df["component"] == "expert"]
    if rows.empty:
        raise UsageError("the result has no rows of experts", "one row for each: -p level experts")
    matrix, layers, experts = layers_by_experts(rows, value)
    heatmap(ax, matrix, layers, experts, _ATTRIBUTION_LABELS[value], **around_zero(matrix))
    ax.set_xlabel("expert")
    ax.set_ylabel("layer")
    return ax


def plot_expert_effect(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "attribution"
) -> "Axes":
    """Draw what ablating each expert changes over what it writes, or how often it is used.

    Parameters
    ----------
    result_df
        The rows of ``expert-effect`` at level experts.
    ax
        Where to draw.
    value
        What is on x: ``attribution`` or ``frequency``.
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    check_value(value, _EFFECT_OVER)
    needed = ("params", "split", "layer", "expert", "frequency", "attribution")
    require_columns(result_df, (*needed, "change_logit_diff"))
    rows = result_df[result_df[value].notna() & result_df["expert"].notna()]
    if rows.empty:
        hint = "see moedb query expert-attribution" if value == "attribution" else None
        raise UsageError(f"no ablated expert has its {value} to draw", hint)
    if rows[["params", "split"]].drop_duplicates().shape[0] > 1:
        groups = ", ".join(sorted({describe(params) for params in rows["params"]}))
        raise UsageError(
            f"the ablations differ in form, tokens or split ({groups}): one figure has one of them",
            "name a run with one of them: -p interventions RUN, or -p split SPLIT",
        )
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    shown = ax.scatter(
        rows[value].to_numpy(float),
        rows["change_logit_diff"].to_numpy(float),
        c=rows["layer"].to_numpy(float),
        s=6,
        linewidths=0,
        alpha=0.8,
        vmin=layers[0],
        vmax=max(layers[-1], layers[0] + 1),
    )
    bar = figure_of(ax).colorbar(shown, ax=ax, aspect=25, pad=0.02)
    bar.set_label("layer")
    bar.set_ticks(few(layers))
    ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    if value == "attribution":
        ax.axvline(0, color=GREY, linewidth=0.5, zorder=0)
    ax.set_xlabel(_EFFECT_OVER[value])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_ylabel("change of logit difference\nwhen ablated")
    ax.spines[["top", "right"]].set_visible(False)
    columns: list[NDArray[np.float64]] = [
        rows[name].to_numpy(np.float64) for name in ("frequency", "attribution")
    ]
    change = rows["change_logit_diff"].to_numpy(np.float64)
    by_use, by_part = correlations_of(columns[0], columns[1], change)
    found, of = (by_part, "loss") if value == "attribution" else (by_use, "size of change")
    if found is not None:
        ax.set_title(
            f"Spearman, with {of}: {found:.2f} ({len(rows)} experts)", loc="right", fontsize=6
        )
    return ax


def _paint_expert_attribution(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_expert_attribution(frame, figure.subplots(), **options)
    return figure


def _paint_expert_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.4)
    plot_expert_effect(frame, figure.subplots(), **options)
    return figure


EXPERT_ATTRIBUTION = Plot(
    "what each expert of each layer writes into the logit difference",
    _paint_expert_attribution,
    {"value": str},
)

EXPERT_EFFECT = Plot(
    "what ablating an expert changes, over what it writes or how often it is used",
    _paint_expert_effect,
    {"value": str},
)
