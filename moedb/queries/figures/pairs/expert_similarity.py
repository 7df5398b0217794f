"""The figure of how alike the weights of two experts are."""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns
from moedb.queries.figures.parts.grid import (
    MOST_PANELS,
    Panel,
    draw_grid,
    grid_height,
    layers_of,
    pair_matrix,
)
from moedb.queries.figures.parts.heatmap import around_zero, between_values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "expert_cosine": "cosine of all weights",
    "gate_cosine": "cosine of the gate projections",
    "up_cosine": "cosine of the up projections",
    "down_cosine": "cosine of the down projections",
    "router_cosine": "cosine of the router's rows",
    "matched_cosine": "cosine of matched neurons",
}
_CHANCE = {
    "expert_cosine": "expert_chance_sd",
    "router_cosine": "router_chance_sd",
    "matched_cosine": "matched_chance",
}


def plot_expert_similarity(
    result_df: "pd.DataFrame", figure: "Figure", *, value: str = "expert_cosine"
) -> "list[Axes]":
    """Draw how alike the weights of two experts are, a panel for each layer.

    The colours meet at 0, where two random vectors are, give or take the deviation that stands
    beside them.

    Parameters
    ----------
    result_df
        The rows of ``expert-similarity``.
    figure
        An empty figure.
    value
        ``expert_cosine``, ``gate_cosine``, ``up_cosine``, ``down_cosine``, ``router_cosine``, or
        ``matched_cosine``, whose colours go from the smallest to the largest.

    Returns
    -------
    list of Axes
        One for each layer, in order.
    """
    import numpy as np

    check_value(value, _LABELS)
    chance = _CHANCE.get(value, "chance_sd")
    require_columns(result_df, ("layer", "expert_a", "expert_b", value, chance))
    if result_df[value].isna().all():
        raise UsageError(
            f"{value}: no pair of experts has one to draw",
            next((str(each) for each in result_df.get("reason", ()) if each), None),
        )
    layers = layers_of(result_df)
    if len(layers) > MOST_PANELS:
        raise UsageError(
            f"{len(layers)} layers are too many for one figure: {MOST_PANELS} at most",
            "name one: -p layer NUMBER",
        )
    matrices = [pair_matrix(result_df, layer, value) for layer in layers]
    experts = range(len(matrices[0]))
    panels = [
        Panel(f"layer {layer}", matrix, experts, experts)
        for layer, matrix in zip(layers, matrices, strict=True)
    ]
    values = np.stack(matrices)
    is_matched = value == "matched_cosine"
    random = f"{'' if is_matched else '0 ± '}{float(result_df[chance].max()):.2g}"
    colours = between_values(values) if is_matched else around_zero(values)
    label = f"{_LABELS[value]} (random: {random})"
    return draw_grid(figure, panels, colours, label, ("expert", "expert"))


def _paint_expert_similarity(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(grid_height(frame["layer"].nunique()))
    plot_expert_similarity(frame, figure, **options)
    return figure


EXPERT_SIMILARITY = Plot(
    "how alike the weights of two experts of a layer are",
    _paint_expert_similarity,
    {"value": str},
)
