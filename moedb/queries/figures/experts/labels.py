"""The figure of what labels of experts are worth.

The function takes axes and a frame, draws, and returns the axes.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.figures.parts.estimates.rows_of_points import (
    ALWAYS_YES,
    OTHER,
    Points,
    draw_points,
    height_of_rows,
    legend_of_points,
    name_rows,
)
from moedb.queries.figures.parts.figure import Plot, figure_width, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {
    kind: Points(
        f"{kind}_f1",
        f"{kind}_low",
        f"{kind}_high",
        "the label, with its 95 % interval",
        (
            (f"{kind}_yes", "always yes", ALWAYS_YES),
            (f"{kind}_other", "another expert's label", OTHER),
        ),
    )
    for kind in ("detection", "fuzzing")
}
_OF_EXPERT = ("label_set", "layer", "expert")
_COLUMNS = (*_OF_EXPERT, "label", *(name for kind in _KINDS.values() for name in kind.columns))
_NAME_LENGTHS = (22, 60)
"""Characters of an expert's name in a figure of one column, and of two."""


def plot_labelled_experts(result_df: "pd.DataFrame", axes: "Sequence[Axes]") -> "Sequence[Axes]":
    """Draw F1 of detection and of fuzzing, with intervals, a row for each labelled expert.

    Parameters
    ----------
    result_df
        The rows of ``labelled-experts``; an expert without a score is left out.
    axes
        Where to draw: detection, and fuzzing.
    """
    require_columns(result_df, _COLUMNS)
    require_one_row(result_df, _OF_EXPERT, "an expert and a set of labels")
    rows = _scored(result_df)
    for ax, (kind, points) in zip(axes, _KINDS.items(), strict=True):
        draw_points(ax, rows, points, range(len(rows)))
        ax.set_title(kind)
        ax.set_xlabel("F1")
    axes[0].set_ylabel("layer.expert, label")
    with_sets = rows["label_set"].nunique() > 1
    length = _NAME_LENGTHS[figure_width() > 5]
    name_rows(axes[0], [_name(row, with_sets, length) for row in rows.to_dict("records")])
    return axes


def _scored(frame: "pd.DataFrame") -> "pd.DataFrame":
    estimates = [points.estimate for points in _KINDS.values()]
    rows = frame[frame[estimates].notna().any(axis=1)]
    if rows.empty:
        raise UsageError("no label of an expert has a score", "moedb label-experts RUN")
    return rows.sort_values(list(_OF_EXPERT))


def _name(row: "Mapping[Hashable, object]", with_sets: bool, length: int) -> str:
    of_set = f"{row['label_set']} " if with_sets else ""
    return shown_name(f"{of_set}{row['layer']}.{row['expert']} {row['label']}", length)


def _paint(frame: "pd.DataFrame") -> "Figure":
    require_columns(frame, _COLUMNS)
    figure = new_figure(height_of_rows(len(_scored(frame))))
    axes = list(figure.subplots(1, len(_KINDS), sharey=True))
    plot_labelled_experts(frame, axes)
    legend_of_points(figure, axes[0])
    return figure


LABELLED_EXPERTS = Plot(
    "what the labels of experts are worth, beside saying yes and another expert's label",
    _paint,
    {},
)
