"""Heat maps about classes: which experts they choose, how alike two of them are.

As in :mod:`~.expert_use` the functions take ``ax`` and a frame, draw, and return ``ax``. Those over
several panels take an empty figure. Classes keep the order of the frame's rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.figure import figure_of
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import heatmap, matrix_of
from moedb.queries.figures.parts.text_fitting import fit_text, shown_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_GROUP = ("variant", "experts")
_TRAINING = ("gate", "balance", "aux_coefficient")
_MOST_COLUMNS = 3
_MOST_PANELS = 24


@dataclass(frozen=True)
class ClassValue:
    """A column that cells of a figure about classes show.

    Attributes
    ----------
    label
        What the colour bar says, with the unit.
    format
        How a number is printed in its cell.
    limit
        Where the scale of colours ends; None for the largest value that there is.
    diverging
        Whether the scale has two sides, which meet at 0.
    """

    label: str
    format: str = ".2f"
    limit: float | None = 1.0
    diverging: bool = False


PAIR_VALUES = {
    "correlation": ClassValue("correlation (Pearson)", diverging=True),
    "covariance": ClassValue("covariance of expert shares", ".3f", None, True),
    "share": ClassValue("share of trials, same expert"),
}
"""What :func:`plot_class_pairs` can show."""

EXPERT_VALUES = {
    "share": ClassValue("share of class's decisions"),
    "rate": ClassValue("share of class's tokens"),
    "weight_share": ClassValue("share of class's weight"),
    "accuracy": ClassValue("accuracy of the expert"),
}
"""What :func:`plot_class_experts` can show."""


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


def plot_class_pairs(
    result_df: "pd.DataFrame",
    ax: "Axes",
    *,
    value: str = "correlation",
    classes: Sequence[str] | None = None,
    norm: "Normalize | None" = None,
) -> "Axes":
    """Draw how alike the classes of one group of trials are, each with each.

    Parameters
    ----------
    result_df
        The columns class_a, class_b and ``value``, one row for each ordered pair. A pair without a
        row or a value is grey.
    ax
        Where to draw.
    value
        ``correlation`` or ``covariance``, in colours that meet at 0, or ``share``.
    classes
        The classes of the rows and columns; those of the frame unless given.
    norm
        How values become colours, where panels share a scale.
    """
    kind = _kind(value, PAIR_VALUES)
    require_columns(result_df, ("class_a", "class_b", value))
    names = list(classes) if classes is not None else classes_of(result_df)
    _require_one_row(result_df, "class_a", "class_b")
    matrix = matrix_of(result_df, ("class_a", names), ("class_b", names), value)
    _draw_matrix(ax, matrix, names, names, kind, norm)
    ax.set_aspect("equal")
    return ax


def plot_class_experts(
    result_df: "pd.DataFrame",
    ax: "Axes",
    *,
    value: str = "share",
    classes: Sequence[str] | None = None,
    norm: "Normalize | None" = None,
) -> "Axes":
    """Draw a value of each class at each expert: classes on y, experts on x.

    Parameters
    ----------
    result_df
        The columns value (the class), expert and ``value``, one row for each class and expert.
    ax
        Where to draw.
    value
        ``share``, ``rate`` or ``weight_share`` of the class, or ``accuracy``.
    classes
        The classes of the rows; those of the frame unless given.
    norm
        How values become colours, where panels share a scale.
    """
    kind = _kind(value, EXPERT_VALUES)
    require_columns(result_df, ("value", "expert", value))
    names = list(classes) if classes is not None else classes_of(result_df)
    experts = list(range(int(result_df["expert"].max()) + 1))
    _require_one_row(result_df, "value", "expert")
    matrix = matrix_of(result_df, ("value", names), ("expert", experts), value)
    _draw_matrix(ax, matrix, names, experts, kind, norm)
    ax.set_xlabel("expert")
    return ax


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
    kind = _kind(value, PAIR_VALUES)
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
    kind = _kind(value, EXPERT_VALUES)
    require_columns(result_df, ("value", "expert", value))
    return _draw_panels(figure, result_df, keys, plot_class_experts, value, kind)


def plot_routing_by_class(
    result_df: "pd.DataFrame", ax: "Axes", *, layer: int | None = None, value: str = "share"
) -> "Axes":
    """Draw the experts that the classes choose, at one layer of one run.

    Parameters
    ----------
    result_df
        The rows of ``routing-by-class``.
    ax
        Where to draw.
    layer
        The layer; need not be given where the frame has one only.
    value
        ``share``, ``rate`` or ``weight_share``.
    """
    require_columns(result_df, ("layer",))
    kind = _kind(value, EXPERT_VALUES)
    layers = sorted(int(number) for number in result_df["layer"].unique())
    if layer is None and len(layers) == 1:
        layer = layers[0]
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        what = "more than one layer" if layer is None else f"no layer {layer}"
        raise UsageError(f"the result has {what}", f"name one of {listed}: -p layer NUMBER")
    chosen = result_df[result_df["layer"] == layer]
    classes = classes_of(chosen)
    # with dozens of experts no share comes near 1
    norm = _norm(ClassValue(kind.label, limit=None), chosen, value)
    plot_class_experts(chosen, ax, value=value, classes=classes, norm=norm)
    figure = figure_of(ax)
    bar = figure.colorbar(ax.images[0], ax=ax, aspect=25, pad=0.02)
    bar.set_label(kind.label)
    ax.set_title(f"layer {layer}")
    fit_text(figure, [ax], kind.format)
    return ax


def classes_of(frame: "pd.DataFrame") -> list[str]:
    """Return the classes of a frame, in the order of its rows."""
    columns = [column for column in ("value", "class_a", "class_b") if column in frame]
    return list(dict.fromkeys(name for column in columns for name in frame[column]))


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
    norm = _norm(kind, frame, value)
    n_rows = 1 + max(panel.row for panel in panels)
    n_columns = 1 + max(panel.column for panel in panels)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    places = {(panel.row, panel.column) for panel in panels}
    axes = []
    for panel in panels:
        ax = grid[panel.row, panel.column]
        draw_panel(panel.frame, ax, value=value, classes=classes, norm=norm)
        ax.set_title(panel.title)
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


def _draw_matrix(
    ax: "Axes",
    matrix: "np.ndarray[Any, Any]",
    rows: Sequence[object],
    columns: Sequence[object],
    kind: ClassValue,
    norm: "Normalize | None",
) -> None:
    heatmap(ax, matrix, [], [], None, norm=norm or _norm_of(kind, matrix), cmap=_colours(kind))
    ax.set_yticks(range(len(rows)), [shown_name(row) for row in rows])
    ax.set_xticks(range(len(columns)), [shown_name(column) for column in columns])


def _require_one_row(frame: "pd.DataFrame", row: str, column: str) -> None:
    hint = "narrow it to one run or layer"
    require_one_row(frame, (row, column), f"a {row} and {column}", hint)


def _kind(value: str, kinds: dict[str, ClassValue]) -> ClassValue:
    check_value(value, kinds)
    return kinds[value]


def _colours(kind: ClassValue) -> str | None:
    return "PuOr" if kind.diverging else None


def _norm(kind: ClassValue, frame: "pd.DataFrame", value: str) -> "Normalize":
    return _norm_of(kind, frame[value].to_numpy(float))


def _norm_of(kind: ClassValue, values: "np.ndarray[Any, Any]") -> "Normalize":
    import numpy as np
    from matplotlib.colors import Normalize

    limit = kind.limit
    if limit is None:
        finite = np.abs(values[np.isfinite(values)])
        limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    return Normalize(-limit if kind.diverging else 0.0, limit)
