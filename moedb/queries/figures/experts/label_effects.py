"""The figure of what taking labelled experts out changes, where their labels fit and elsewhere.

The function takes ``ax`` and a frame, draws, and returns ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import GREY
from moedb.queries.figures.parts.figure import TALLEST, Plot, new_figure
from moedb.queries.figures.parts.frames import require_columns, require_one_row
from moedb.queries.figures.parts.text_fitting import shown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fits", "where its label fits", {"color": "C0", "marker": "o"}),
    ("other", "where it is chosen otherwise", {"color": "C1", "marker": "s"}),
    ("control_own", "a control, where that is chosen", {"color": GREY, "marker": "^"}),
)
_COLUMNS = (
    *("layer", "expert", "label"),
    *(f"{group}{end}" for group, _, _ in _SERIES for end in ("", "_low", "_high")),
)
_APART = 0.24
"""How far from an expert's place on y its series stand."""
_MOST_EXPERTS = 64


def plot_label_effects(result_df: "pd.DataFrame", ax: "Axes") -> "Axes":
    """Draw the mean change in three groups of tokens, a line for each layer.expert and its label.

    Parameters
    ----------
    result_df
        The rows of ``label-effects``, of the effects of one name.
    ax
        Where to draw.
    """
    import numpy as np

    require_columns(result_df, _COLUMNS)
    require_one_row(
        result_df, ("layer", "expert"), "a layer and an expert", "name one: -p effects NAME"
    )
    rows = result_df.sort_values(["layer", "expert"])
    _expect_some(rows)
    for place, (group, label, style) in enumerate(_SERIES):
        found, low, high = (rows[f"{group}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        # a mean without an interval has no bar; an end may miss the mean by rounding
        errors = np.maximum(np.nan_to_num([found - low, high - found]), 0.0)
        at = np.arange(len(rows)) + (place - 1) * _APART
        points: dict[str, Any] = {**style, "linestyle": "none", "markersize": 2.2}
        ax.errorbar(found, at, xerr=errors, elinewidth=0.6, label=label, **points)
    names = [
        f"{layer}.{expert} {shown_name(label)}"
        for layer, expert, label in zip(rows["layer"], rows["expert"], rows["label"], strict=True)
    ]
    ax.set_yticks(np.arange(len(rows)), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.axvline(0.0, color=GREY, linewidth=0.6, zorder=0)
    ax.set_xlabel("change of log-probability (nats)\nbars: 95 % intervals")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _expect_some(frame: "pd.DataFrame") -> None:
    if frame.empty:
        raise UsageError("there are no effects to draw", "moedb check-labels RUN --labels NAME")
    if len(frame) > _MOST_EXPERTS:
        raise UsageError(
            f"{len(frame)} experts are too many for one figure: {_MOST_EXPERTS} at most",
            "take those of a layer: -p layer L",
        )


def _paint(frame: "pd.DataFrame") -> "Figure":
    require_columns(frame, _COLUMNS)
    _expect_some(frame)
    figure = new_figure(min(1.4 + 0.2 * len(frame), TALLEST))
    ax = figure.subplots()
    plot_label_effects(frame, ax)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=1)
    return figure


LABEL_EFFECTS = Plot(
    "what taking labelled experts out changes, where their labels fit and elsewhere",
    _paint,
    {},
)
