"""The figure of how sure of its choice the router is.

The functions take ``ax`` and a frame, draw, and return ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.classes.matrices import classes_of
from moedb.queries.figures.parts.axes import MARKERS, finish_layers, legend_above
from moedb.queries.figures.parts.estimates.intervals import draw_band, draw_bars, ends_of
from moedb.queries.figures.parts.figure import TALLEST, Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import Colours, between_values, heatmap, matrix_of
from moedb.queries.figures.parts.layout import add_note
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "mean_entropy": "entropy of the router (bits)",
    "mean_margin": "largest less second probability",
    "mean_topk_mass": "probability of the chosen experts",
    "mean_logsumexp": "log-sum-exp of the logits (nats)",
}
_SPREAD = {"mean_entropy": "sd_entropy"}
_MOST_LINES = 8
_MOST_CLASSES = 60


def plot_router_confidence(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "mean_entropy"
) -> "Axes":
    """Draw by layer how sure the router is, a line for each class.

    Of the entropy the deviation over tokens is shown, one up and one down: as a band where there is
    one class over several layers, as bars otherwise. It is how much tokens differ and no interval
    of the mean. Where the rows have intervals, those are drawn in its place. More than eight
    classes are the rows of a heat map, without either.

    Parameters
    ----------
    result_df
        The rows of ``router-confidence``.
    ax
        Where to draw.
    value
        ``mean_entropy``, ``mean_margin``, ``mean_topk_mass`` or ``mean_logsumexp``.
    """
    import numpy as np

    check_value(value, _LABELS)
    spread = _SPREAD.get(value)
    needed = ("layer", "value", value, *([] if spread is None else [spread]))
    require_columns(result_df, needed)
    require_one_row(result_df, ("layer", "value"), "a layer and a class")
    if result_df[value].isna().all():
        raise UsageError(f"no layer has a {value} to draw")
    classes = classes_of(result_df)
    if len(classes) > _MOST_LINES:
        return _confidence_heatmap(result_df, classes, ax, value)
    if ends_of(result_df, value) is not None:
        spread = None
    notes: list[str] = []
    shifts = np.linspace(-0.2, 0.2, len(classes)) if len(classes) > 1 else [0.0]
    for number, name in enumerate(classes):
        rows = result_df[result_df["value"] == name].sort_values("layer")
        layers, means = rows["layer"].to_numpy(float), rows[value].to_numpy(float)
        style: dict[str, Any] = {"color": f"C{number}", "marker": MARKERS[number]}
        style |= {"markersize": 2.5, "label": shown_name(name)}
        at = layers + shifts[number]
        if spread is None:
            ax.plot(at, means, linewidth=0.8, **style)
            draw = draw_band if len(classes) == 1 else draw_bars
            notes += draw(ax, at, rows, value, style["color"])
            continue
        deviations = rows[spread].to_numpy(float)
        if len(classes) == 1 and len(layers) > 1:
            ax.plot(layers, means, **style)
            low, high = means - deviations, means + deviations
            ax.fill_between(layers, low, high, color="C0", alpha=0.2, linewidth=0)
        else:
            ax.errorbar(at, means, deviations, elinewidth=0.5, linewidth=0.8, **style)
    finish_layers(ax, result_df["layer"].to_numpy(float), _LABELS[value])
    if len(classes) > 1:
        longest = max(len(shown_name(name)) for name in classes)
        legend_above(ax, 5 if longest <= 6 else 4 if longest <= 8 else 2)
    if spread is not None and result_df[spread].notna().any():
        what = "band" if len(classes) == 1 and result_df["layer"].nunique() > 1 else "bars"
        ax.set_xlabel(f"layer ({what}: one sd over tokens)")
    add_note(figure_of(ax), "; ".join(dict.fromkeys(notes)))
    return ax


def _confidence_heatmap(
    frame: "pd.DataFrame", classes: list[str], ax: "Axes", value: str
) -> "Axes":
    """Draw a row for each class, a column for each layer."""
    if len(classes) > _MOST_CLASSES:
        raise UsageError(
            f"{len(classes)} classes are too many for one figure: {_MOST_CLASSES} at most",
            "take a label with fewer values: -p key KEY; the numbers: moedb query "
            "router-confidence",
        )
    layers = sorted(int(layer) for layer in frame["layer"].unique())
    matrix = matrix_of(frame, ("value", classes), ("layer", layers), value)
    colours: Colours = between_values(matrix)
    names = [shown_name(name) for name in classes]
    heatmap(ax, matrix, names, layers, _LABELS[value], **colours)
    ax.set_xlabel("layer")
    ax.set_ylabel("class")
    return ax


def _paint_router_confidence(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("value",))
    n_classes = len(classes_of(frame))
    height = 2.2 if n_classes <= _MOST_LINES else 0.8 + 0.13 * n_classes
    figure = new_figure(min(height, TALLEST))
    plot_router_confidence(frame, figure.subplots(), **options)
    return figure


ROUTER_CONFIDENCE = Plot(
    "how sure of its choice the router is, by layer and by class",
    _paint_router_confidence,
    {"value": str},
)
