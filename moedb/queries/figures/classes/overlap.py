"""The figure of how far two groups of tokens use the same experts.

The function takes ``ax`` and a frame, draws, and returns ``ax``.
"""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import MARKERS, finish_layers, legend_above
from moedb.queries.figures.parts.estimates.intervals import ASIDE, draw_bars, draw_chance
from moedb.queries.figures.parts.figure import Plot, figure_of, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.layout import add_note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "jaccard": "Jaccard index of the {m} most used",
    "overlap_coefficient": "overlap coefficient of the {m} most used",
    "weighted_jaccard": "weighted Jaccard index of all",
    "jensen_shannon": "Jensen-Shannon divergence (bits)",
}
_EXPECTED = "expected_jaccard"
_RANDOM = "the same of {m} drawn at random"
_SHOWN = ("jaccard", "weighted_jaccard", "jensen_shannon")


def plot_overlap(result_df: "pd.DataFrame", ax: "Axes", *, value: str | None = None) -> "Axes":
    """Draw by layer how far two groups of tokens use the same experts.

    Parameters
    ----------
    result_df
        The rows of ``overlap``. A layer without a value has no mark.
    ax
        Where to draw.
    value
        ``jaccard``, ``overlap_coefficient``, ``weighted_jaccard`` or ``jensen_shannon``, alone.
        Without it two indices, which are 1 where the groups are alike, and, dashed, the
        divergence, which is 0 there. Beside ``jaccard`` a dotted line says what two random sets of
        experts as large as these share on average.
    """
    if value is not None:
        check_value(value, _LABELS)
    shown = _SHOWN if value is None else (value,)
    require_columns(result_df, ("layer", "m", "n_tokens_a", "n_tokens_b", *shown))
    require_one_row(result_df, ("layer",), "a layer", "narrow it to one pair of groups")
    frame = result_df.sort_values("layer")
    if frame[list(shown)].isna().to_numpy().all():
        raise UsageError(f"no layer has a {shown[0]} to draw: a group has no tokens")
    sizes = sorted({int(m) for m in frame["m"]})
    m = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    layers = frame["layer"].to_numpy(float)
    notes: list[str] = []
    for column in shown:
        number = list(_LABELS).index(column)
        style: dict[str, Any] = {"color": f"C{number}", "marker": MARKERS[number]}
        style["linestyle"] = "--" if column == "jensen_shannon" else "-"
        label = _LABELS[column].format(m=m)
        ax.plot(layers, frame[column].to_numpy(float), markersize=2.5, label=label, **style)
        notes += draw_bars(ax, layers, frame, column, style["color"])
        notes += draw_chance(ax, layers + ASIDE, frame, column, style["color"])
        if column == "jaccard" and _EXPECTED in frame and frame[_EXPECTED].notna().any():
            expected = frame[_EXPECTED].to_numpy(float)
            ax.plot(layers, expected, ":", color=style["color"], label=_RANDOM.format(m=m))
    groups = [_counted(frame[f"n_tokens_{group}"]) for group in "ab"]
    finish_layers(ax, layers, "overlap of experts" if value is None else _of_axis(value))
    ax.set_xlabel(f"layer ({groups[0]} tokens in group A, {groups[1]} in B)")
    if shown == ("jensen_shannon",):
        ax.set_ylim(bottom=0)
    else:
        ax.set_ylim(-0.02, 1.02)
    legend_above(ax, 1)
    add_note(figure_of(ax), "; ".join(dict.fromkeys(notes)))
    return ax


def _of_axis(value: str) -> str:
    return "divergence (bits)" if value == "jensen_shannon" else "overlap of experts"


def _counted(numbers: "pd.Series[int]") -> str:
    least, most = int(numbers.min()), int(numbers.max())
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _paint_overlap(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.2 if "value" in options else 2.4)
    plot_overlap(frame, figure.subplots(), **options)
    return figure


OVERLAP = Plot(
    "how far two labels, or two runs, use the same experts of each layer",
    _paint_overlap,
    {"value": str},
)
