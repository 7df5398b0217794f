"""The figure of how much the experts tell about a label.

The function takes ``ax`` and a frame, draws, and returns ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import GREY, finish_layers, legend_above
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "information": "I(label; expert), bits",
    "normalized": "I(label; expert) / H(label)",
}
_NULL = ("null_mean", "null_highest")
_COLUMNS = ("layer", "information", "label_entropy", "permuted", *_NULL, "p_value")
_LEVEL = 0.05
_DASH: dict[str, Any] = {"marker": "_", "markersize": 8}


def plot_label_information(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "information"
) -> "Axes":
    """Draw by layer the information of a label and the experts, over that of shuffled labels.

    A mark is filled where the p-value is 0.05 or less, and hollow otherwise. The band goes from the
    mean of the permutations to the largest.

    Parameters
    ----------
    result_df
        The rows of ``label-information``. Without permutations there is no band, and no mark is
        hollow.
    ax
        Where to draw.
    value
        ``information``, or ``normalized``: all of it over the entropy of the label.
    """
    check_value(value, _LABELS)
    require_columns(result_df, (*_COLUMNS, value))
    require_one_row(result_df, ("layer",), "a layer", "narrow it to one run")
    frame = result_df.sort_values("layer")
    if frame[value].isna().all():
        raise UsageError(f"no layer has its {value} to draw: the label has a single value")
    layers = frame["layer"].to_numpy(float)
    unit = frame["label_entropy"].to_numpy(float) if value == "normalized" else 1.0
    found = frame[value].to_numpy(float)
    ax.plot(layers, found, color="C0", label="labels as they are")
    p_values = frame["p_value"].to_numpy(float)
    for at, label, colour in (
        (p_values <= _LEVEL, f"p at most {_LEVEL}", "C0"),
        (p_values > _LEVEL, f"p above {_LEVEL}", "white"),
        (frame["p_value"].isna().to_numpy(), None, "C0"),
    ):
        if at.any():
            style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "markeredgewidth": 0.8}
            style |= {"markerfacecolor": colour, "markeredgecolor": "C0", "linestyle": "none"}
            ax.plot(layers[at], found[at], label=label, **style)
    if frame["null_mean"].notna().any():
        mean, highest = (frame[column].to_numpy(float) / unit for column in _NULL)
        spread = "labels shuffled: mean to largest"
        ax.fill_between(layers, mean, highest, color=GREY, alpha=0.5, linewidth=0, label=spread)
        for level in (mean, highest):
            # one layer has no line: a dash
            ax.plot(layers, level, color=GREY, linewidth=0.8, **_DASH if len(layers) == 1 else {})
    finish_layers(ax, layers, _LABELS[value])
    permuted = visible(" or ".join(dict.fromkeys(map(str, frame["permuted"])))).replace("$", r"\$")
    if frame["null_mean"].notna().any():
        ax.set_xlabel(f"layer (shuffled: {permuted})")
    ax.set_ylim(bottom=0)
    legend_above(ax)
    return ax


def _paint_label_information(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.2)
    plot_label_information(frame, figure.subplots(), **options)
    return figure


LABEL_INFORMATION = Plot(
    "how much the experts tell about a label, over what they tell of shuffled labels",
    _paint_label_information,
    {"value": str},
)
