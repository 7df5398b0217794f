"""The figure of how often each expert is used.

The function takes ``ax`` and a frame, draws, and returns ``ax``. Layers are on y, experts on x.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.estimates.marks import dot_note, holds, mark_cells
from moedb.queries.figures.parts.figure import Plot, figure_of, height_of_layers, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns
from moedb.queries.figures.parts.heatmap import heatmap, layers_by_experts, matrix_of
from moedb.queries.figures.parts.layout import add_note

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FREQUENCY_LABELS = {
    "frequency": "frequency (share of tokens)",
    "share": "share of routing decisions",
    "n_decisions": "routing decisions",
}

_UNIFORM_NOTE = "its 95 % interval holds uniform use, or there is none"


def plot_expert_frequency(
    result_df: "pd.DataFrame", ax: "Axes", *, value: str = "frequency"
) -> "Axes":
    """Draw how often each expert of each layer is used.

    The colour bar marks the level at which every expert would be used equally often.

    Parameters
    ----------
    result_df
        The columns layer, expert, ``value`` and uniform.
    ax
        Where to draw.
    value
        ``frequency`` (of tokens), ``share`` (of decisions) or ``n_decisions``.
    """
    import numpy as np
    from matplotlib.colors import Normalize

    check_value(value, _FREQUENCY_LABELS)
    require_columns(result_df, ("layer", "expert", value))
    matrix, layers, experts = layers_by_experts(result_df, value)
    uniform = np.array([])
    if value == "frequency" and "uniform" in result_df:
        uniform = np.unique(result_df["uniform"].dropna().to_numpy(float))
    largest = float(np.nanmax(np.append(matrix, uniform)))
    norm = Normalize(0.0, largest if largest > 0 else 1.0)
    heatmap(ax, matrix, layers, experts, _FREQUENCY_LABELS[value], norm=norm)
    ax.set_xlabel("expert")
    ax.set_ylabel("layer")
    if uniform.size:
        _mark_uniform(ax, uniform)
    if "uniform" in result_df and "frequency" in result_df:
        _dot_uniform(ax, result_df, layers, experts)
    return ax


def _dot_uniform(
    ax: "Axes", frame: "pd.DataFrame", layers: list[int], experts: "Sequence[int]"
) -> None:
    """Mark the experts that are not told from uniform use: of which the interval holds it."""
    held = holds(frame, "frequency", frame["uniform"])
    if held is None:
        return
    rows = frame.assign(held=held)
    mask = matrix_of(rows, ("layer", layers), ("expert", experts), "held") == 1
    add_note(figure_of(ax), dot_note(_UNIFORM_NOTE, [mask]))
    mark_cells([ax], [mask])


def _mark_uniform(ax: "Axes", levels: "np.ndarray[Any, Any]") -> None:
    """Mark on the colour bar where all experts would be used equally often."""
    bar = ax.images[0].colorbar
    if bar is None:
        return
    for level in levels:
        bar.ax.axhline(level, color="white", linewidth=1.6)
        bar.ax.axhline(level, color="black", linewidth=0.8)
    shown = f"{levels.min():.3g}"
    if levels.size > 1:
        shown += f" to {levels.max():.3g}"
    ax.set_title(f"line on the colour bar: uniform use, {shown}", loc="right", fontsize=6)


def _paint_expert_frequency(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer", "expert"))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_expert_frequency(frame, figure.subplots(), **options)
    return figure


EXPERT_FREQUENCY = Plot(
    "how often each expert of each layer is used", _paint_expert_frequency, {"value": str}
)
