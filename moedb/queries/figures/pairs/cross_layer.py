"""The figure of which experts of the next layer an expert goes with."""

from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.estimates.intervals import ends_of
from moedb.queries.figures.parts.estimates.marks import holds
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.grid import (
    Panel,
    draw_grid,
    grid_height,
    layers_of,
    most_used,
    rows_of_layer,
)
from moedb.queries.figures.parts.heatmap import Colours, around_one, up_from_zero

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "p_next_given": "P(column | row), share of tokens",
    "lift": "lift (over independent layers)",
    "n_both": "tokens that chose both",
}
_COLUMNS = ("layer", "next_layer", "expert", "next_expert", "n_both", "n_expert")
_MOST_PANELS, _MOST_WIDE = 48, 9


def cross_layer_matrix(
    result_df: "pd.DataFrame", layer: int, *, value: str = "p_next_given", top: int | None = None
) -> "tuple[np.ndarray[Any, Any], list[int], list[int]]":
    """Return the matrix of a layer's experts and those of the next layer.

    Parameters
    ----------
    result_df
        The rows of ``cross-layer``. A pair that no token chose has no row and is 0.
    layer
        The first of the two layers.
    value
        ``p_next_given``, ``lift`` or ``n_both``.
    top
        Keep only this many experts of either layer, the most used first. All unless given.

    Returns
    -------
    matrix
        Shape (experts, next experts). NaN for an expert that no token chose: of it nothing is
        known, and of a next one no lift.
    experts
        The expert of each row.
    next_experts
        The expert of each column.
    """
    import numpy as np

    check_value(value, _LABELS)
    require_columns(result_df, (*_COLUMNS, value))
    pairs = rows_of_layer(result_df, layer)
    require_one_row(pairs, ("expert", "next_expert"), f"a pair of experts of layer {layer}")
    shape = (1 + int(result_df["expert"].max()), 1 + int(result_df["next_expert"].max()))
    rows, columns = pairs["expert"].to_numpy(int), pairs["next_expert"].to_numpy(int)
    both = np.zeros(shape)
    both[rows, columns] = pairs["n_both"].to_numpy(float)
    matrix = np.zeros(shape)
    matrix[rows, columns] = pairs[value].to_numpy(float)
    uses = np.zeros(shape[0])
    uses[rows] = pairs["n_expert"].to_numpy(float)
    matrix[uses == 0] = np.nan
    if value == "lift":
        matrix[:, both.sum(axis=0) == 0] = np.nan
    # a token's pairs are as many for each expert that it chooses
    experts, next_experts = most_used(uses, top), most_used(both.sum(axis=0), top)
    return matrix[np.ix_(experts, next_experts)], experts, next_experts


def _as_chance(
    result_df: "pd.DataFrame", layer: int, experts: list[int], next_experts: list[int]
) -> "np.ndarray[Any, Any] | None":
    """(expert, next expert): the pairs whose lift is not told from 1, also those without a row."""
    import numpy as np

    if ends_of(result_df, "lift") is None:
        return None
    pairs = rows_of_layer(result_df, layer)
    shape = (1 + int(result_df["expert"].max()), 1 + int(result_df["next_expert"].max()))
    mask = np.ones(shape, dtype=bool)
    held = holds(pairs, "lift", 1.0)
    if held is not None:
        mask[pairs["expert"].to_numpy(int), pairs["next_expert"].to_numpy(int)] = held
    return mask[np.ix_(experts, next_experts)]


def plot_cross_layer(
    result_df: "pd.DataFrame",
    figure: "Figure",
    *,
    value: str = "p_next_given",
    top: int | None = None,
) -> "list[Axes]":
    """Draw each layer's experts and those of the next layer, a panel for each pair of layers.

    Parameters
    ----------
    result_df
        The rows of ``cross-layer``.
    figure
        An empty figure.
    value, top
        As for :func:`cross_layer_matrix`.

    Returns
    -------
    list of Axes
        One for each pair of layers, in order.
    """
    import numpy as np

    check_value(value, _LABELS)
    require_columns(result_df, (*_COLUMNS, value))
    layers = layers_of(result_df)
    if len(layers) > _MOST_PANELS:
        raise UsageError(
            f"{len(layers)} pairs of layers are too many for one figure: {_MOST_PANELS} at most",
            "name the first of two layers: -p layer NUMBER",
        )
    panels = []
    for layer in layers:
        matrix, rows, columns = cross_layer_matrix(result_df, layer, value=value, top=top)
        after = int(rows_of_layer(result_df, layer)["next_layer"].iloc[0])
        # with ``top`` each panel has experts of its own, named where it is the only one
        named = top is None or len(layers) == 1
        names_of_rows, names_of_columns = (rows, columns) if named else ([], [])
        # many panels are narrow
        title = f"{layer} to {after}" if len(layers) > _MOST_WIDE else f"layers {layer} to {after}"
        as_chance = _as_chance(result_df, layer, rows, columns)
        panels.append(Panel(title, matrix, names_of_rows, names_of_columns, as_chance))
    values = np.concatenate([panel.matrix.ravel() for panel in panels])
    colours: Colours = around_one(values) if value == "lift" else up_from_zero(values)
    by_use = "" if top is None else ", by use"
    names = f"expert{by_use}", f"expert of the next layer{by_use}"
    if len(layers) > 1:
        names = names[0], f"next expert{by_use}"
    return draw_grid(figure, panels, colours, _LABELS[value], names)


def _paint_cross_layer(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(grid_height(frame["layer"].nunique()))
    plot_cross_layer(frame, figure, **options)
    return figure


CROSS_LAYER = Plot(
    "which experts of the next layer an expert goes with",
    _paint_cross_layer,
    {"value": str, "top": int},
)
