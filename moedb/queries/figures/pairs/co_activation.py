"""Figures of which experts are chosen together: each expert of a layer with each other.

The functions take ``ax`` and a frame, draw, and return ``ax``; the one over all layers takes an
empty figure.
"""

from typing import TYPE_CHECKING, Any

from moedb.queries.figures.parts.estimates.intervals import ends_of
from moedb.queries.figures.parts.estimates.marks import holds
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.grid import (
    Panel,
    draw_grid,
    grid_height,
    layers_of,
    mark_panels,
    most_used,
    rows_of_layer,
)
from moedb.queries.figures.parts.heatmap import Colours, around_one, heatmap, up_from_zero

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAIR_LABELS = {
    "jaccard": "co-activation (Jaccard index of tokens)",
    "lift": "lift (co-activation over chance)",
    "p_b_given_a": "P(column | row), share of tokens",
    "n_both": "tokens that use both experts",
}
_TRANSPOSED = {"p_b_given_a": "p_a_given_b"}


def co_activation_matrix(
    result_df: "pd.DataFrame", layer: int, *, value: str = "jaccard", top: int | None = None
) -> "tuple[np.ndarray[Any, Any], list[int]]":
    """Return the matrix of pairs of experts of one layer, and the experts of its rows.

    Parameters
    ----------
    result_df
        One row for each pair with expert_a < expert_b; pairs that are absent count as zero.
    layer
        The layer.
    value
        ``jaccard``, ``lift``, ``n_both`` (all symmetric) or ``p_b_given_a``, where the row is the
        expert given.
    top
        Keep only this many experts, the most used first. All, by number, unless given.

    Returns
    -------
    matrix
        Shape (experts, experts), NaN on the diagonal.
    experts
        The expert of each row and column.
    """
    import numpy as np

    check_value(value, _PAIR_LABELS)
    transposed = _TRANSPOSED.get(value, value)
    require_columns(result_df, ("layer", "expert_a", "expert_b", "n_a", "n_b", value, transposed))
    pairs = rows_of_layer(result_df, layer)
    n_experts = 1 + int(result_df[["expert_a", "expert_b"]].to_numpy().max())
    require_one_row(pairs, ("expert_a", "expert_b"), f"a pair of layer {layer}")
    a, b = pairs["expert_a"].to_numpy(int), pairs["expert_b"].to_numpy(int)
    matrix = np.zeros((n_experts, n_experts))
    matrix[a, b] = pairs[value].to_numpy(float)
    matrix[b, a] = pairs[transposed].to_numpy(float)
    np.fill_diagonal(matrix, np.nan)
    used = np.zeros(n_experts)
    used[a], used[b] = pairs["n_a"].to_numpy(float), pairs["n_b"].to_numpy(float)
    experts = most_used(used, top)
    return matrix[np.ix_(experts, experts)], experts


def _as_chance(
    result_df: "pd.DataFrame", layer: int, experts: list[int]
) -> "np.ndarray[Any, Any] | None":
    """(expert, expert): the pairs whose lift is not told from 1, also those without a row."""
    import numpy as np

    if ends_of(result_df, "lift") is None:
        return None
    pairs = rows_of_layer(result_df, layer)
    n_experts = 1 + int(result_df[["expert_a", "expert_b"]].to_numpy().max())
    mask = np.ones((n_experts, n_experts), dtype=bool)
    held = holds(pairs, "lift", 1.0)
    if held is not None:
        a, b = pairs["expert_a"].to_numpy(int), pairs["expert_b"].to_numpy(int)
        mask[a, b] = mask[b, a] = held
    return mask[np.ix_(experts, experts)]


def plot_co_activation(
    result_df: "pd.DataFrame",
    ax: "Axes",
    layer: int,
    *,
    value: str = "jaccard",
    top: int | None = None,
) -> "Axes":
    """Draw how much the tokens of two experts of one layer coincide.

    Parameters
    ----------
    result_df
        The rows of ``co-activation``.
    ax
        Where to draw.
    layer
        The layer.
    value, top
        As for :func:`co_activation_matrix`.
    """
    matrix, experts = co_activation_matrix(result_df, layer, value=value, top=top)
    heatmap(ax, matrix, experts, experts, _PAIR_LABELS[value], **_pair_colours(matrix, value))
    ax.set_aspect("equal")
    ax.set_title(f"layer {layer}")
    ax.set_xlabel("expert")
    ax.set_ylabel("expert")
    mark_panels([ax], [_as_chance(result_df, layer, experts)])
    return ax


def plot_co_activation_layers(
    result_df: "pd.DataFrame", figure: "Figure", *, value: str = "jaccard", top: int | None = None
) -> "list[Axes]":
    """Draw :func:`plot_co_activation` for every layer, small, on one scale of colours.

    Parameters
    ----------
    result_df
        The rows of ``co-activation``.
    figure
        An empty figure.
    value, top
        As for :func:`co_activation_matrix`.

    Returns
    -------
    list of Axes
        One for each layer, in order.
    """
    import numpy as np

    require_columns(result_df, ("layer",))
    layers = layers_of(result_df)
    matrices = [co_activation_matrix(result_df, layer, value=value, top=top) for layer in layers]
    colours = _pair_colours(np.stack([matrix for matrix, _ in matrices]), value)
    # with ``top`` each layer has experts of its own, and there is no room for their names
    named = "expert" if top is None else "expert, by use"
    panels = []
    for layer, (matrix, experts) in zip(layers, matrices, strict=True):
        labels = experts if top is None else []
        as_chance = _as_chance(result_df, layer, experts)
        panels.append(Panel(f"layer {layer}", matrix, labels, labels, as_chance))
    return draw_grid(figure, panels, colours, _PAIR_LABELS[value], (named, named))


def _pair_colours(matrix: "np.ndarray[Any, Any]", value: str) -> Colours:
    return around_one(matrix) if value == "lift" else up_from_zero(matrix)


def _paint_co_activation(
    frame: "pd.DataFrame", layer: int | None = None, **options: Any
) -> "Figure":
    require_columns(frame, ("layer",))
    n_layers = frame["layer"].nunique()
    if layer is None and n_layers == 1:
        layer = int(frame["layer"].iloc[0])
    if layer is not None:
        figure = new_figure(grid_height(1))
        plot_co_activation(frame, figure.subplots(), layer, **options)
        return figure
    figure = new_figure(grid_height(n_layers))
    plot_co_activation_layers(frame, figure, **options)
    return figure


CO_ACTIVATION = Plot(
    "how much the tokens of two experts coincide",
    _paint_co_activation,
    {"layer": int, "value": str, "top": int},
)
