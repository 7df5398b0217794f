"""The heat maps about classes side by side, a panel for each group of trials.

The functions take an empty figure and a frame, and return the axes of the panels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.classes.matrices import (
    EXPERT_VALUES,
    PAIR_VALUES,
    ClassValue,
    classes_of,
    kind_of_value,
    plot_class_experts,
    plot_class_pairs,
    scale_of,
)
from moedb.queries.figures.parts.figure import TALLEST, Plot, figure_width, new_figure
from moedb.queries.figures.parts.frames import require_columns
from moedb.queries.figures.parts.text_fitting import fit_text, shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GROUP = ("variant", "experts")
_TRAINING = ("gate", "balance", "aux_coefficient")
_MOST_COLUMNS = 3
_MOST_PANELS = 24


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: its title, its place in the grid, and its rows."""

    title: str
    row: int
    column: int
    frame: "pd.DataFrame"


def panels_of(frame: "pd.DataFrame", keys: Sequence[str] = _GROUP) -> list[Panel]:
    """Divide a frame into the panels of a figure.

    Where there are variants to compare, each has a column and each number of experts a row;
    otherwise the panels follow each other.

    Parameters
    ----------
    frame
        The rows of a query over trials.
    keys
        The columns whose values tell the panels apart; ``variant`` and ``experts`` come first.
        Behind these are gate, balance and aux_coefficient where the frame has several of them.

    Raises
    ------
    UsageError
        If there are too many panels for a figure, or a panel would have more than one layer.
    """
    require_columns(frame, keys)
    keys = (*keys[:2], *several_trainings(frame), *keys[2:])
    groups = list(frame.groupby(list(keys), sort=False, dropna=False))
    if len(groups) > _MOST_PANELS:
        raise UsageError(
            f"{len(groups)} panels are too many for one figure: {_MOST_PANELS} at most",
            "narrow it: "
            + " ".join(f"-p {key} {key.upper()}" for key in keys if key in (*_GROUP, *_TRAINING)),
        )
    variants = list(frame["variant"].drop_duplicates())
    numbers = sorted(int(number) for number in frame["experts"].unique())
    side_by_side = len(keys) == 2 and 1 < len(variants) <= _MOST_COLUMNS
    n_columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(groups))))
    panels = []
    for position, (group, rows) in enumerate(groups):
        key: tuple[Any, ...] = tuple(group)
        variant, experts = key[0], int(key[1])
        title = f"{experts} experts" if experts != 1 else "1 expert"
        if variant:
            title = f"{shown_name(variant)}, {title}"
        title += titled(keys[2:], key[2:])
        if "layer" in rows and rows["layer"].nunique() > 1:
            layers = ", ".join(map(str, sorted(rows["layer"].unique())))
            raise UsageError(f"{title}: layers {layers} in one panel", "name one: -p layer NUMBER")
        if side_by_side:
            place = numbers.index(experts), variants.index(variant)
        else:
            place = divmod(position, n_columns)
        panels.append(Panel(title, *place, rows))
    return panels


def several_trainings(frame: "pd.DataFrame") -> list[str]:
    """Which of gate, balance and aux_coefficient differ between the rows of a query over trials."""
    return [key for key in _TRAINING if key in frame and frame[key].nunique(dropna=False) > 1]


def titled(keys: Sequence[str], values: Sequence[object]) -> str:
    """The lines of a panel's title that say what tells it from others, each with its key."""
    return "".join(f"\n{key} {shown_name(value)}" for key, value in zip(keys, values, strict=True))


def plot_class_pair_panels(
    result_df: "pd.DataFrame", figure: "Figure", *, value: str = "correlation"
) -> "list[Axes]":
    """Draw :func:`plot_class_pairs` for each variant and number of experts, on one scale.

    Parameters
    ----------
    result_df
        The rows of class-correlation, class-covariance or class-consistency.
    figure
        An empty figure.
    value
        As for :func:`plot_class_pairs`.
    """
    kind = kind_of_value(value, PAIR_VALUES)
    require_columns(result_df, ("class_a", "class_b", value))
    return _draw_panels(figure, result_df, _GROUP, plot_class_pairs, value, kind)


def plot_class_expert_panels(
    result_df: "pd.DataFrame",
    figure: "Figure",
    *,
    value: str = "share",
    keys: Sequence[str] = _GROUP,
) -> "list[Axes]":
    """Draw :func:`plot_class_experts` for each variant and number of experts, on one scale.

    Parameters
    ----------
    result_df
        The rows of routing-by-class-over-trials or expert-accuracy.
    figure
        An empty figure.
    value
        As for :func:`plot_class_experts`.
    keys
        The columns that tell the panels apart.
    """
    kind = kind_of_value(value, EXPERT_VALUES)
    require_columns(result_df, ("value", "expert", value))
    return _draw_panels(figure, result_df, keys, plot_class_experts, value, kind)


def _draw_panels(
    figure: "Figure",
    frame: "pd.DataFrame",
    keys: Sequence[str],
    draw_panel: "Callable[..., Axes]",
    value: str,
    kind: ClassValue,
) -> "list[Axes]":
    panels = panels_of(frame, keys)
    classes = classes_of(frame)
    norm = scale_of(kind, frame, value)
    n_rows = 1 + max(panel.row for panel in panels)
    n_columns = 1 + max(panel.column for panel in panels)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    places = {(panel.row, panel.column) for panel in panels}
    axes = []
    for panel in panels:
        ax = grid[panel.row, panel.column]
        draw_panel(panel.frame, ax, value=value, classes=classes, norm=norm)
        ax.set_title(panel.title + _necessity(panel, value))
        if panel.column and (panel.row, panel.column - 1) in places:
            ax.tick_params(labelleft=False)
        if (panel.row + 1, panel.column) in places:
            ax.set_xlabel("")
            # the panels of a column have the same classes on x, but experts of their own number
            ax.tick_params(labelbottom=value in EXPERT_VALUES and "expert" in frame)
        axes.append(ax)
    for row in range(n_rows):
        for column in range(n_columns):
            if (row, column) not in places:
                grid[row, column].set_axis_off()
    bar = figure.colorbar(
        axes[0].images[0],
        ax=list(grid.flat),
        shrink=0.9 if n_rows == 1 else 0.6,
        aspect=25,
        pad=0.02,
    )
    bar.set_label(kind.label)
    fit_text(figure, axes, kind.format)
    return axes


def _necessity(panel: Panel, value: str) -> str:
    """What the title of a panel adds where its values could be no others."""
    of_two = value == "correlation" and bool((panel.frame["experts"] == 2).all())
    return "\n±1 by necessity" if of_two else ""


def _paint_class_pairs(frame: "pd.DataFrame", value: str) -> "Figure":
    panels = panels_of(frame)
    n_rows = 1 + max(panel.row for panel in panels)
    n_columns = 1 + max(panel.column for panel in panels)
    panel = (figure_width() - 1.0 - 0.1 * n_columns) / n_columns
    figure = new_figure(min(0.6 + n_rows * (panel + 0.2), TALLEST))
    plot_class_pair_panels(frame, figure, value=value)
    return figure


def _paint_class_experts(
    frame: "pd.DataFrame", value: str, keys: tuple[str, ...] = ("variant", "experts")
) -> "Figure":
    panels = panels_of(frame, keys)
    n_rows = 1 + max(panel.row for panel in panels)
    n_lines = 1 + max(panel.title.count("\n") for panel in panels)
    room = min(max(0.7, 0.12 * len(classes_of(frame))), 2.5) + 0.12 * (2 + n_lines)
    figure = new_figure(min(0.3 + n_rows * room, TALLEST))
    plot_class_expert_panels(frame, figure, value=value, keys=keys)
    return figure


CLASS_CONSISTENCY = Plot(
    "in how many trials two classes have the same main expert",
    partial(_paint_class_pairs, value="share"),
    {},
)

CLASS_CORRELATION = Plot(
    "whether two classes choose the same experts",
    partial(_paint_class_pairs, value="correlation"),
    {},
)

CLASS_COVARIANCE = Plot(
    "whether two classes choose the same experts, by the spread of their shares",
    partial(_paint_class_pairs, value="covariance"),
    {},
)

EXPERT_ACCURACY = Plot(
    "how well each expert alone knows each class",
    partial(_paint_class_experts, value="accuracy", keys=("variant", "experts", "trial")),
    {},
)

ROUTING_BY_CLASS_OVER_TRIALS = Plot(
    "which matched experts each class chooses, mean over trials",
    partial(_paint_class_experts, value="share"),
    {},
)
