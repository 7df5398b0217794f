"""Figures of which experts are chosen together: each expert of a layer with each other.

The functions take ``ax`` and a frame, draw, and return ``ax``; the one over all layers takes an
empty figure.
"""

import math
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.figure import Plot, new_figure
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row
from moedb.queries.figures.parts.heatmap import SCALE_QUANTILE, bar_ends, heatmap

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_PAIR_LABELS = {
    "jaccard": "co-activation (Jaccard index of tokens)",
    "lift": "lift (co-activation over independence)",
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
    layers = sorted(int(number) for number in result_df["layer"].unique())
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        raise UsageError(f"the result has no layer {layer}", f"layers: {listed}")
    n_experts = 1 + int(result_df[["expert_a", "expert_b"]].to_numpy().max())
    pairs = result_df[result_df["layer"] == layer]
    require_one_row(pairs, ("expert_a", "expert_b"), f"a pair of layer {layer}")
    a, b = pairs["expert_a"].to_numpy(int), pairs["expert_b"].to_numpy(int)
    matrix = np.zeros((n_experts, n_experts))
    matrix[a, b] = pairs[value].to_numpy(float)
    matrix[b, a] = pairs[transposed].to_numpy(float)
    np.fill_diagonal(matrix, np.nan)
    experts = list(range(n_experts))
    if top is not None:
        if top < 2:
            raise UsageError(f"top {top} leaves no pair: 2 experts or more")
        used = np.zeros(n_experts)
        used[a], used[b] = pairs["n_a"].to_numpy(float), pairs["n_b"].to_numpy(float)
        experts = sorted(experts, key=lambda expert: (-used[expert], expert))[:top]
    return matrix[np.ix_(experts, experts)], experts


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
    norm, cmap = _pair_colours(matrix, value)
    heatmap(ax, matrix, experts, experts, _PAIR_LABELS[value], norm=norm, cmap=cmap)
    ax.set_aspect("equal")
    ax.set_title(f"layer {layer}")
    ax.set_xlabel("expert")
    ax.set_ylabel("expert")
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
    layers = sorted(int(layer) for layer in result_df["layer"].unique())
    matrices = [co_activation_matrix(result_df, layer, value=value, top=top) for layer in layers]
    norm, cmap = _pair_colours(np.stack([matrix for matrix, _ in matrices]), value)
    n_columns = grid_columns(len(layers))
    grid = figure.subplots(math.ceil(len(layers) / n_columns), n_columns, squeeze=False)
    axes = list(grid.flat)
    # with ``top`` each layer has experts of its own, and there is no room for their names
    named = "expert" if top is None else "expert, by use"
    for position, (layer, (matrix, experts)) in enumerate(zip(layers, matrices, strict=True)):
        ax = axes[position]
        labels = experts if top is None else []
        heatmap(ax, matrix, labels, labels, None, norm=norm, cmap=cmap)
        ax.set_aspect("equal")
        ax.set_title(f"layer {layer}")
        if position % n_columns == 0:
            ax.set_ylabel(named)
        else:
            ax.tick_params(labelleft=False)
        if position + n_columns >= len(layers):
            ax.set_xlabel(named)
        else:
            ax.tick_params(labelbottom=False)
    for ax in axes[len(layers) :]:
        ax.set_axis_off()
    extend = (
        "max" if any(bar_ends(ax.images[0]) == "max" for ax in axes[: len(layers)]) else "neither"
    )
    bar = figure.colorbar(
        axes[0].images[0], ax=axes, shrink=0.8, aspect=30, pad=0.02, extend=extend
    )
    bar.set_label(_PAIR_LABELS[value])
    return axes[: len(layers)]


def grid_columns(n_layers: int) -> int:
    """Return how many panels stand side by side when every layer has one."""
    return min(max(1, math.ceil(math.sqrt(n_layers))), 4)


def _pair_colours(matrix: "np.ndarray[Any, Any]", value: str) -> "tuple[Normalize, str | None]":
    """Return scale and colour map: for lift two colours that meet at 1, else from 0 up.

    The scale ends at :data:`SCALE_QUANTILE` of the cells.
    """
    import numpy as np
    from matplotlib.colors import Normalize, TwoSlopeNorm

    finite = matrix[np.isfinite(matrix)]
    largest = float(np.quantile(finite, SCALE_QUANTILE)) if finite.size else 1.0
    if largest <= 0:
        largest = float(finite.max()) or 1.0
    if value == "lift":
        return TwoSlopeNorm(1.0, 0.0, max(largest, 1.0 + 1e-9)), "PuOr"
    return Normalize(0.0, largest), None


def _paint_co_activation(
    frame: "pd.DataFrame", layer: int | None = None, **options: Any
) -> "Figure":
    require_columns(frame, ("layer",))
    n_layers = frame["layer"].nunique()
    if layer is None and n_layers == 1:
        layer = int(frame["layer"].iloc[0])
    if layer is not None:
        figure = new_figure(2.9)
        plot_co_activation(frame, figure.subplots(), layer, **options)
        return figure
    n_columns = grid_columns(n_layers)
    panel = 2.6 / n_columns
    figure = new_figure(0.45 + (panel + 0.1) * math.ceil(n_layers / n_columns))
    plot_co_activation_layers(frame, figure, **options)
    return figure


CO_ACTIVATION = Plot(
    "how much the tokens of two experts coincide",
    _paint_co_activation,
    {"layer": int, "value": str, "top": int},
)
