"""Figures of what decides between two answers: logit lens, attribution, interventions.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean
from moedb.queries.expert_effect import correlations_of, describe
from moedb.queries.heatmaps import heatmap, require_columns
from moedb.queries.sheets import visible

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MOST_SERIES = 8
"""Lines in one figure of interventions."""

_GREY = "0.6"
_BAND = 0.2
_MARKERS = "os^Dv<>P"

_LENS_LABELS = {
    "mean_logit_diff": "logit difference",
    "share_ahead": "share of prompts ahead",
    "mean_logprob": "log-probability (nats)",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
}
_PLACES = {"mid": "after attention", "post": "after the layer"}
_EFFECT_LABELS = {
    "change_logit_diff": "change of logit difference",
    "change_probability": "change of probability",
    "change_accuracy": "change of accuracy",
    "change_top1_accuracy": "change of top-1 accuracy",
    "normalized": "normalized logit difference",
}
_LENS_EFFECT_LABELS = {
    "change_logit_diff": "change of logit difference",
    "mean_logit_diff": "logit difference",
}
_ATTRIBUTION_LABELS = {
    "attribution": "logit difference written",
    "attribution_per_use": "logit difference, per use",
}
_EFFECT_OVER = {
    "attribution": "logit difference written (attribution)",
    "frequency": "frequency (share of tokens)",
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
    _check_value(value, _LENS_LABELS)
    require_columns(result_df, ("layer", "place", value))
    if result_df.duplicated(["layer", "place"]).any():
        raise UsageError("more than one row for a place of a layer", "narrow it to one run")
    band = f"{value}_low", f"{value}_high"
    first = result_df[result_df["place"] == "pre"]
    for number, (place, label) in enumerate(_PLACES.items()):
        rows = result_df[result_df["place"] == place].sort_values("layer")
        colour = f"C{number}"
        layers, values = rows["layer"].to_numpy(float), rows[value].to_numpy(float)
        ax.plot(layers, values, color=colour, marker=_MARKERS[number], markersize=2.5, label=label)
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
        ax.axhline(0, color=_GREY, linewidth=0.5, zorder=0)
    _finish_layers(ax, result_df["layer"].to_numpy(float), _LENS_LABELS[value])
    ax.legend(loc="best")
    return ax


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

    _check_value(value, _EFFECT_LABELS)
    band = f"{value}_low", f"{value}_high"
    require_columns(result_df, ("kind", "layer", "expert", "params", "split", value, *band))
    frame = result_df[result_df["layer"].notna() & result_df[value].notna()].copy()
    if frame.empty:
        raise UsageError(
            f"no intervention at a single layer has a {value} to draw",
            "the interventions: moedb query intervention-effect",
        )
    names = _series_names(frame)
    series = list(dict.fromkeys(names))
    if len(series) > MOST_SERIES:
        return _effect_heatmap(frame, names, ax, value)
    spread = np.linspace(-0.2, 0.2, len(series)) if len(series) > 1 else [0.0]
    for number, name in enumerate(series):
        rows = frame[names == name].sort_values("layer", kind="stable")
        at = rows["layer"].to_numpy(float) + spread[number]
        values = rows[value].to_numpy(float)
        style: dict[str, Any] = {"color": f"C{number}", "marker": _MARKERS[number], "label": name}
        if rows["layer"].duplicated().any():
            ax.plot(at, values, linestyle="none", markersize=2, alpha=0.6, **style)
            continue
        low, high = (rows[column].to_numpy(float) for column in band)
        errors = np.abs([np.nan_to_num(values - low), np.nan_to_num(high - values)])
        ax.errorbar(at, values, errors, markersize=2.5, elinewidth=0.6, linewidth=0.8, **style)
    levels = (0.0, 1.0) if value == "normalized" else (0.0,)
    for level in levels:
        ax.axhline(level, color=_GREY, linewidth=0.5, zorder=0)
    _finish_layers(ax, frame["layer"].to_numpy(float), _EFFECT_LABELS[value])
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
    import numpy as np
    from matplotlib.colors import Normalize

    _check_value(value, _LENS_EFFECT_LABELS)
    needed = ("kind", "params", "split", "layer", "expert", "read_layer", "place", value)
    require_columns(result_df, needed)
    at_one = result_df["layer"].notna() & result_df["expert"].isna()
    frame = result_df[at_one & (result_df["place"] == "post")]
    if frame.empty:
        raise UsageError(
            "no intervention on a whole layer was read after a layer",
            "the interventions: moedb query lens-effect",
        )
    names = _series_names(frame)
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
    matrix = np.full((len(changed), len(read)), np.nan)
    for layer, after, number in zip(frame["layer"], frame["read_layer"], frame[value], strict=True):
        matrix[changed.index(int(layer)), read.index(int(after))] = number
    largest = float(np.nanmax(np.abs(matrix))) if np.isfinite(matrix).any() else 0.0
    norm = Normalize(-(largest or 1.0), largest or 1.0)
    heatmap(ax, matrix, changed, read, _LENS_EFFECT_LABELS[value], norm=norm, cmap="PuOr")
    ax.set_xlabel("read after layer")
    ax.set_ylabel("changed layer")
    ax.set_title(str(names.iloc[0]), fontsize=6, loc="left")
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
        norm, cmap = Normalize(min(0.0, np.nanmin(matrix)), max(1.0, np.nanmax(matrix))), None
    else:
        largest = float(np.nanmax(np.abs(matrix))) or 1.0
        norm, cmap = Normalize(-largest, largest), "PuOr"
    heatmap(ax, matrix, list(table.index), layers, _EFFECT_LABELS[value], norm=norm, cmap=cmap)
    # the names of the rows leave little width
    step = -(-len(layers) // 6)
    ax.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    ax.set_xlabel("layer")
    return ax


def n_series(frame: "pd.DataFrame") -> int:
    """The number of lines that :func:`plot_intervention_effect` would draw."""
    return len(set(_series_names(frame[frame["layer"].notna()])))


def effect_lines(frame: "pd.DataFrame") -> int:
    """The number of lines of text that its legend takes, or its heat map."""
    if frame.empty or not {"kind", "layer", "params", "split"} <= set(frame):
        return 0
    names = set(_series_names(frame[frame["layer"].notna()]))
    if not names:
        return 0
    one_each = len(names) > MOST_SERIES or max(map(len, names)) > 30
    return len(names) if one_each else (len(names) + 1) // 2


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
    import numpy as np
    from matplotlib.colors import Normalize

    _check_value(value, _ATTRIBUTION_LABELS)
    require_columns(result_df, ("component", "layer", "expert", value))
    rows = result_df[result_df["component"] == "expert"]
    if rows.empty:
        raise UsageError("the result has no rows of experts", "one row for each: -p level experts")
    if rows.duplicated(["layer", "expert"]).any():
        raise UsageError("more than one row for an expert of a layer", "narrow it to one run")
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    matrix = np.full((len(layers), int(rows["expert"].max()) + 1), np.nan)
    at = rows["layer"].astype(int).map({layer: row for row, layer in enumerate(layers)})
    matrix[at.to_numpy(int), rows["expert"].to_numpy(int)] = rows[value].to_numpy(float)
    largest = float(np.nanmax(np.abs(matrix))) if np.isfinite(matrix).any() else 0.0
    norm = Normalize(-(largest or 1.0), largest or 1.0)
    label = _ATTRIBUTION_LABELS[value]
    heatmap(ax, matrix, layers, range(matrix.shape[1]), label, norm=norm, cmap="PuOr")
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

    _check_value(value, _EFFECT_OVER)
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
    figure = ax.get_figure()
    assert figure is not None  # noqa: S101
    bar = figure.colorbar(shown, ax=ax, aspect=25, pad=0.02)
    bar.set_label("layer")
    bar.set_ticks(_few(layers))
    ax.axhline(0, color=_GREY, linewidth=0.5, zorder=0)
    if value == "attribution":
        ax.axvline(0, color=_GREY, linewidth=0.5, zorder=0)
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


def _check_value(value: str, labels: "dict[str, str]") -> None:
    if value not in labels:
        raise UsageError(f"no value {value!r}", did_you_mean(value, labels))


def _series_names(frame: "pd.DataFrame") -> "pd.Series[str]":
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


def _few(layers: Sequence[int]) -> list[int]:
    step = max(1, -(-len(layers) // 8))
    return list(layers[::step])


def _finish_layers(ax: "Axes", layers: "NDArray[np.floating[Any]]", label: str) -> None:
    found = sorted({int(layer) for layer in layers})
    ax.set_xticks(_few(range(found[0], found[-1] + 1)))
    ax.set_xlim(found[0] - 0.7, found[-1] + 0.4)
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    ax.spines[["top", "right"]].set_visible(False)
