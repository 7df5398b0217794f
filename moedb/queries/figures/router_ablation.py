"""Bar charts of the named analyses.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.figures.classes.panels import several_trainings, titled
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_VARIANTS = 3
_BAR_WIDTH = 0.27
_ROUTERS = {
    "learned": "learned router",
    "random": "random router",
    "reinitialized": "untrained experts",
}
_DEVIATIONS = {"learned": "learned_sd", "random": "random_sd"}


def plot_router_ablation(result_df: "pd.DataFrame", ax: "Axes") -> "Axes":
    """Draw the accuracy of learned, random and re-initialized routing as grouped bars.

    Parameters
    ----------
    result_df
        The columns experts, n_trials, learned, random, reinitialized, learned_sd and random_sd,
        one row for each number of experts. A value of null has no bar; error bars are one sample
        deviation over the trials, where there is more than one.
    ax
        Where to draw.
    """
    import numpy as np

    require_columns(result_df, ("experts", "n_trials", *_ROUTERS, *_DEVIATIONS.values()))
    hint = "one row over the trials of one training: -p level experts -p gate GATE"
    require_one_row(result_df, ("experts",), "a number of experts", hint)
    frame = result_df.sort_values("experts")
    places = np.arange(len(frame))
    several = frame["n_trials"].to_numpy(float) > 1
    for number, (column, label) in enumerate(_ROUTERS.items()):
        heights = frame[column].to_numpy(float)
        at = places + (number - 1) * _BAR_WIDTH
        ax.bar(at, heights, _BAR_WIDTH * 0.92, label=label)
        if column in _DEVIATIONS and several.any():
            errors = np.where(several, frame[_DEVIATIONS[column]].to_numpy(float), np.nan)
            ax.errorbar(
                at, heights, errors, fmt="none", ecolor="black", elinewidth=0.6, capsize=1.5
            )
    ax.set_xticks(places, [str(int(experts)) for experts in frame["experts"]])
    ax.set_xlabel("experts")
    ax.set_ylabel("accuracy")
    ax.set_xlim(-0.5, len(frame) - 0.5)
    ax.set_ylim(0.0, 1.0)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_router_ablation_variants(result_df: "pd.DataFrame", figure: "Figure") -> "list[Axes]":
    """Draw :func:`plot_router_ablation` for each variant and training, side by side.

    Parameters
    ----------
    result_df
        The rows of ``router-ablation`` at level experts.
    figure
        An empty figure.
    """
    require_columns(result_df, ("variant", "n_trials", *_ROUTERS))
    if result_df[list(_ROUTERS)].isna().to_numpy().all():
        raise UsageError("no trial has an accuracy to draw: the runs hold no predictions")
    keys = ["variant", *several_trainings(result_df)]
    groups = list(result_df.groupby(keys, sort=False, dropna=False))
    if len(groups) > _MOST_VARIANTS:
        raise UsageError(
            f"{len(groups)} variants are too many for one figure: {_MOST_VARIANTS} at most",
            "name one: " + " ".join(f"-p {key} {key.upper()}" for key in keys),
        )
    # panels as wide as their bars need
    widths = [max(rows["experts"].nunique(), 1) for _, rows in groups]
    grid = figure.subplots(1, len(groups), squeeze=False, sharey=True, width_ratios=widths)
    axes = list(grid.flat)
    for position, (ax, (group, rows)) in enumerate(zip(axes, groups, strict=True)):
        plot_router_ablation(rows, ax)
        variant, *training = group
        lines = (shown_name(variant) if variant else "") + titled(keys[1:], training)
        ax.set_title(lines.strip())
        if position:
            ax.set_ylabel("")
    title = "error bars: one sd over trials" if (result_df["n_trials"] > 1).any() else None
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        title=title,
        title_fontsize=6,
        handlelength=1.0,
        columnspacing=1.2,
    )
    legend.set_alignment("center")
    return axes


def _paint_router_ablation(frame: "pd.DataFrame") -> "Figure":
    figure = new_figure(2.2)
    plot_router_ablation_variants(frame, figure)
    return figure


ROUTER_ABLATION = Plot(
    "accuracy with the learned router, a random one, and untrained experts",
    _paint_router_ablation,
    {},
)
