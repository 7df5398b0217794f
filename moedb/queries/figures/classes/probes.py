"""The figure of how well concepts are told by more and more neurons.

The function takes ``axes`` and a frame, draws, and returns the axes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.axes import GREY
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {"f1": "F1 on test", "balanced_accuracy": "balanced accuracy on test"}
_LINES: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "f1": (
        ("f1_best_on_test", "best on test", {"color": "C1", "linestyle": "--"}),
        ("f1", "chosen", {"color": "C0", "marker": "o", "markersize": 3}),
        ("f1_mean", "all, by their tokens", {"color": "C2"}),
        ("f1_always_yes", "always yes", {"color": GREY, "linestyle": ":"}),
    ),
    "balanced_accuracy": (
        ("balanced_accuracy", "chosen", {"color": "C0", "marker": "o", "markersize": 3}),
        ("balanced_accuracy_mean", "all, by their tokens", {"color": "C2"}),
    ),
}
_SHUFFLED: dict[str, Any] = {"color": GREY, "marker": "x", "markersize": 3}
_COLUMNS = ("probe", "key", "protocol", "labels", "k")


def plot_probe_curves(
    result_df: "pd.DataFrame", axes: "Sequence[Axes]", *, value: str = "f1"
) -> "Sequence[Axes]":
    """Draw by the number of neurons how well concepts are told, a panel for each protocol.

    Parameters
    ----------
    result_df
        The rows of ``probe-curves``, of one key of the probes of one name.
    axes
        Where to draw, one for each protocol.
    value
        ``f1``, or ``balanced_accuracy``, of which chance is one half.
    """
    from matplotlib.ticker import NullLocator

    check_value(value, _LABELS)
    require_columns(result_df, (*_COLUMNS, *(column for column, _, _ in _LINES[value])))
    require_one_row(
        result_df,
        ("protocol", "labels", "k"),
        "a protocol and a k",
        "narrow it: -p probe NAME -p key KEY",
    )
    sizes = sorted({int(k) for k in result_df["k"]})
    for ax, protocol in zip(axes, _protocols(result_df), strict=True):
        rows = result_df[result_df["protocol"] == protocol].sort_values("k")
        true, shuffled = (rows[rows["labels"] == labels] for labels in ("true", "shuffled"))
        for column, label, style in _LINES[value]:
            ax.plot(true["k"], true[column], label=label, **style)
        if len(shuffled):
            ax.plot(shuffled["k"], shuffled[value], label="chosen, labels shuffled", **_SHUFFLED)
        if value == "balanced_accuracy":
            ax.axhline(0.5, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [str(k) for k in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(0.0, 1.02)
        ax.set_xlabel("neurons of a probe")
        ax.set_title(protocol)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(_LABELS[value])
    return axes


def _protocols(frame: "pd.DataFrame") -> list[str]:
    found = sorted(set(frame["protocol"]))
    if not found:
        raise UsageError("there are no probes to draw", "moedb probe RUN --key KEY")
    return found


def _paint(frame: "pd.DataFrame", *, value: str = "f1") -> "Figure":
    require_columns(frame, _COLUMNS)
    figure = new_figure(2.6)
    axes = figure.subplots(1, len(_protocols(frame)), sharey=True, squeeze=False)[0]
    plot_probe_curves(frame, list(axes), value=value)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


PROBE_CURVES = Plot(
    "how well concepts are told by few neurons and by more, and what the choice adds",
    _paint,
    {"value": str},
)
