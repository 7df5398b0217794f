"""Heat maps about classes: which experts they choose, how alike two of them are.

The functions take ``ax`` and a frame, draw, and return ``ax``. Classes keep the order of the
frame's rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from moedb.errors import UsageError
from moedb.queries.figures.parts.estimates.marks import (
    CHANCE_NOTE,
    LIFT_NOTE,
    dot_note,
    holds,
    is_as_chance,
    mark_cells,
)
from moedb.queries.figures.parts.figure import Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import (
    around_one,
    bar_ends,
    colour_bar,
    heatmap,
    matrix_of,
)
from moedb.queries.figures.parts.layout import add_note
from moedb.queries.figures.parts.text_fitting import fit_text, shown_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


_MOST_CLASSES = 200


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
    meets
        Where the two sides of the scale meet, if it has two: 0, or 1 for ratios.
    """

    label: str
    format: str = ".2f"
    limit: float | None = 1.0
    meets: Literal[0, 1] | None = None


PAIR_VALUES = {
    "correlation": ClassValue("correlation (Pearson)", meets=0),
    "covariance": ClassValue("covariance of expert shares", ".3f", None, 0),
    "share": ClassValue("share of trials, same expert"),
}
"""What :func:`plot_class_pairs` can show."""

EXPERT_VALUES = {
    "share": ClassValue("share of class's decisions"),
    "rate": ClassValue("share of class's tokens"),
    "weight_share": ClassValue("share of class's weight"),
    "accuracy": ClassValue("accuracy of the expert"),
    "lift": ClassValue("lift (class over all)", ".1f", None, 1),
}
"""What :func:`plot_class_experts` can show."""


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
    kind = kind_of_value(value, PAIR_VALUES)
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
        ``share``, ``rate`` or ``weight_share`` of the class, ``accuracy``, or ``lift``, in
        colours that meet at 1, as far from each other as logarithms are.
    classes
        The classes of the rows; those of the frame unless given.
    norm
        How values become colours, where panels share a scale.
    """
    kind = kind_of_value(value, EXPERT_VALUES)
    require_columns(result_df, ("value", "expert", value))
    names = list(classes) if classes is not None else classes_of(result_df)
    experts = list(range(int(result_df["expert"].max()) + 1))
    _require_one_row(result_df, "value", "expert")
    matrix = matrix_of(result_df, ("value", names), ("expert", experts), value)
    _draw_matrix(ax, matrix, names, experts, kind, norm)
    ax.set_xlabel("expert")
    return ax


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
        ``share``, ``rate``, ``weight_share`` or ``lift``.
    """
    require_columns(result_df, ("layer", value))
    kind = kind_of_value(value, EXPERT_VALUES)
    layers = sorted(int(number) for number in result_df["layer"].unique())
    if layer is None and len(layers) == 1:
        layer = layers[0]
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        what = "more than one layer" if layer is None else f"no layer {layer}"
        raise UsageError(f"the result has {what}", f"name one of {listed}: -p layer NUMBER")
    chosen = result_df[result_df["layer"] == layer]
    classes = classes_of(chosen)
    if len(classes) > _MOST_CLASSES:
        raise UsageError(
            f"{len(classes)} classes are too many for one figure: {_MOST_CLASSES} at most",
            "take a label with fewer values: -p key KEY; the numbers: moedb query routing-by-class",
        )
    if chosen[value].isna().all():
        raise UsageError(f"layer {layer} has no {value} to draw")
    # with dozens of experts no share comes near 1
    norm = scale_of(replace(kind, limit=None), chosen, value)
    plot_class_experts(chosen, ax, value=value, classes=classes, norm=norm)
    figure = figure_of(ax)
    ends = bar_ends(ax.images[0])
    bar = figure.colorbar(ax.images[0], ax=ax, aspect=25, pad=0.02, extend=ends)
    colour_bar(bar, kind.label)
    ax.set_title(f"layer {layer}")
    ax.set_ylabel("class")
    mask, note = _as_chance(chosen, classes, value)
    if mask is not None:
        add_note(figure, dot_note(note, [mask]))
    fit_text(figure, [ax], kind.format, with_dots=mask is not None)
    if mask is not None:
        mark_cells([ax], [mask])
    return ax


def _as_chance(
    frame: "pd.DataFrame", classes: Sequence[str], value: str
) -> "tuple[NDArray[np.bool_] | None, str]":
    """Which cells are not told from chance, and by what; None where the rows do not say.

    A rate is a share times k, and a lift a rate over what stays as it is: what is known of one
    of them holds for all.
    """
    if value not in ("share", "rate", "lift"):
        return None, ""
    told = [(holds(frame, "lift", 1.0), LIFT_NOTE), (is_as_chance(frame, "rate"), CHANCE_NOTE)]
    for held, note in told if value == "lift" else reversed(told):
        if held is not None:
            experts = range(int(frame["expert"].max()) + 1)
            rows = frame.assign(held=held)
            return matrix_of(rows, ("value", classes), ("expert", experts), "held") == 1, note
    return None, ""


def classes_of(frame: "pd.DataFrame") -> list[str]:
    """Return the classes of a frame, in the order of its rows."""
    columns = [column for column in ("value", "class_a", "class_b") if column in frame]
    return list(dict.fromkeys(name for column in columns for name in frame[column]))


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


def kind_of_value(value: str, kinds: dict[str, ClassValue]) -> ClassValue:
    """Return how a figure shows the column ``value``; refuse one that it cannot show."""
    check_value(value, kinds)
    return kinds[value]


def _colours(kind: ClassValue) -> str | None:
    return None if kind.meets is None else "PuOr"


def scale_of(kind: ClassValue, frame: "pd.DataFrame", value: str) -> "Normalize":
    """Return the scale of colours for the values of a frame."""
    return _norm_of(kind, frame[value].to_numpy(float))


def _norm_of(kind: ClassValue, values: "np.ndarray[Any, Any]") -> "Normalize":
    import numpy as np
    from matplotlib.colors import Normalize

    if kind.meets == 1:
        return around_one(values)["norm"]
    limit = kind.limit
    if limit is None:
        finite = np.abs(values[np.isfinite(values)])
        limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    return Normalize(0.0 if kind.meets is None else -limit, limit)


def _paint_routing_by_class(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(min(max(1.6, 0.7 + 0.13 * len(classes_of(frame))), 4.5))
    plot_routing_by_class(frame, figure.subplots(), **options)
    return figure


ROUTING_BY_CLASS = Plot(
    "which experts of a layer each class chooses",
    _paint_routing_by_class,
    {"layer": int, "value": str},
)
