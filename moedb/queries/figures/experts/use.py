"""The figure of how often each expert is used.

The function takes ``ax`` and a frame, draws, and returns ``ax``. Layers are on y, experts on x.
"""

from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.figure import Plot, height_of_layers, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns
from moedb.queries.figures.parts.heatmap import heatmap, layers_by_experts

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
    return ax


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
