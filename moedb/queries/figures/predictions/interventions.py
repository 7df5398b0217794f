"""The figure of what interventions change.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

import json
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.analyses.predictions.conditions import describe
from moedb.queries.figures.parts.axes import GREY, MARKERS, finish_layers
from moedb.queries.figures.parts.figure import TALLEST, Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns
from moedb.queries.figures.parts.heatmap import Colours, around_zero, heatmap
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SERIES = 8
"""Lines in one figure of interventions."""

_EFFECT_LABELS = {
    "change_logit_diff": "change of logit difference",
    "change_probability": "change of probability",
    "change_accuracy": "change of accuracy",
    "change_top1_accuracy": "change of top-1 accuracy",
    "normalized": "normalized logit difference",
}


def plot_intervention_effect(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "change_logit_diff"
) -> "Axes":
    """Draw what interventions change, by the layer that they are at.

    A kind, with its parameters, is a line with the intervals as error bars; where it is about
    single experts, each of them is a dot. More than eight of them are the rows of a heat map,
    without intervals. What is at several layers at once is left out.

    Parameters
    ----------
    result_df
        The rows of ``intervention-effect``.
    ax
        Where to draw.
    value
        ``change_logit_diff``, ``change_probability``, ``change_accuracy``,
        ``change_top1_accuracy`` or ``normalized``.
    """
    import numpy as np

    check_value(value, _EFFECT_LABELS)
    band = f"{value}_low", f"{value}_high"
    require_columns(result_df, ("kind", "layer", "expert", "params", "split", value, *band))
    frame = result_df[result_df["layer"].notna() & result_df[value].notna()].copy()
    if frame.empty:
        raise UsageError(
            f"no intervention at a single layer has a {value} to draw",
            "the interventions: moedb query intervention-effect",
        )
    names = series_names(frame)
    series = list(dict.fromkeys(names))
    if len(series) > MOST_SERIES:
        return _effect_heatmap(frame, names, ax, value)
    spread = np.linspace(-0.2, 0.2, len(series)) if len(series) > 1 else [0.0]
    for number, name in enumerate(series):
        rows = frame[names == name].sort_values("layer", kind="stable")
        at = rows["layer"].to_numpy(float) + spread[number]
        values = rows[value].to_numpy(float)
        style: dict[str, Any] = {"color": f"C{number}", "marker": MARKERS[number], "label": name}
        if rows["layer"].duplicated().any():
            ax.plot(at, values, linestyle="none", markersize=2, alpha=0.6, **style)
            continue
        low, high = (rows[column].to_numpy(float) for column in band)
        errors = np.abs([np.nan_to_num(values - low), np.nan_to_num(high - values)])
        ax.errorbar(at, values, errors, markersize=2.5, elinewidth=0.6, linewidth=0.8, **style)
    levels = (0.0, 1.0) if value == "normalized" else (0.0,)
    for level in levels:
        ax.axhline(level, color=GREY, linewidth=0.5, zorder=0)
    finish_layers(ax, frame["layer"].to_numpy(float), _EFFECT_LABELS[value])
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=1 if max(map(len, labels)) > 30 else 2,
        handlelength=1.5,
        columnspacing=1.0,
    )
    return ax


def _effect_heatmap(
    frame: "pd.DataFrame", names: "pd.Series[str]", ax: "Axes", value: str
) -> "Axes":
    """Draw a row for each kind with its parameters, a column for each layer."""
    import numpy as np
    from matplotlib.colors import Normalize

    rows = frame.assign(series=names)
    if rows.duplicated(["series", "layer"]).any():
        raise UsageError(
            f"{names.nunique()} series, some about single experts, are too many for one figure: "
            f"{MOST_SERIES} at most",
            "narrow it: -p kind KIND -p split SPLIT",
        )
    by_split = rows.sort_values("split", kind="stable")["series"]
    table = rows.pivot(index="series", columns="layer", values=value).loc[by_split.unique()]
    matrix = table.to_numpy(float)
    layers = [int(layer) for layer in table.columns]
    if value == "normalized":  # from the corrupted to the clean prompt
        low, high = min(0.0, np.nanmin(matrix)), max(1.0, np.nanmax(matrix))
        colours: Colours = {"norm": Normalize(low, high)}
    else:
        colours = around_zero(matrix)
    heatmap(ax, matrix, list(table.index), layers, _EFFECT_LABELS[value], **colours)
    # the names of the rows leave little width
    step = -(-len(layers) // 6)
    ax.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    ax.set_xlabel("layer")
    return ax


def n_series(frame: "pd.DataFrame") -> int:
    """The number of lines that :func:`plot_intervention_effect` would draw."""
    return len(set(series_names(frame[frame["layer"].notna()])))


def effect_lines(frame: "pd.DataFrame") -> int:
    """The number of lines of text that its legend takes, or its heat map."""
    if frame.empty or not {"kind", "layer", "params", "split"} <= set(frame):
        return 0
    names = set(series_names(frame[frame["layer"].notna()]))
    if not names:
        return 0
    one_each = len(names) > MOST_SERIES or max(map(len, names)) > 30
    return len(names) if one_each else (len(names) + 1) // 2


def series_names(frame: "pd.DataFrame") -> "pd.Series[str]":
    """For each row the name of its line: kind, parameters, and the split where there are more."""
    several = frame["split"].nunique() > 1
    texts = {params: describe(_of_series(params)) for params in frame["params"].unique()}
    names = []
    for kind, params, split in zip(frame["kind"], frame["params"], frame["split"], strict=True):
        parts = [kind, texts[params], f"into {split}" if several else ""]
        names.append(visible(" ".join(part for part in parts if part)).replace("$", r"\$"))
    import pandas as pd

    return pd.Series(names, index=frame.index, dtype=object)


def _of_series(params: str) -> str:
    """The parameters without those that differ from layer to layer."""
    values = json.loads(params or "{}")
    return json.dumps({k: v for k, v in values.items() if k not in ("experts", "layers")})


def _paint_intervention_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    n_lines = effect_lines(frame)
    height = 2.1 + 0.12 * n_lines if n_lines <= MOST_SERIES else 0.9 + 0.13 * n_lines
    figure = new_figure(min(height, TALLEST))
    plot_intervention_effect(frame, figure.subplots(), **options)
    return figure


INTERVENTION_EFFECT = Plot(
    "what interventions at each layer change in the answers",
    _paint_intervention_effect,
    {"value": str},
)
