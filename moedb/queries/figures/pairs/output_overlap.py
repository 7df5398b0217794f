"""The figure of how alike the outputs of two experts are."""

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
from moedb.queries.figures.parts.heatmap import around_zero, up_from_zero

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "cosine": "mean cosine of the outputs",
    "cka": "linear CKA (near 1 with few tokens)",
}


def output_overlap_matrix(
    result_df: "pd.DataFrame", layer: int, *, value: str = "cosine"
) -> "np.ndarray[Any, Any]":
    """Return the matrix of pairs of experts of one layer.

    Parameters
    ----------
    result_df
        The rows of ``output-overlap``.
    layer
        The layer.
    value
        ``cosine`` or ``cka``.

    Returns
    -------
    ndarray
        Shape (experts, experts), symmetric. NaN on the diagonal, and for a pair without a row or
        a value: too few tokens.
    """
    check_value(value, _LABELS)
    require_columns(result_df, ("layer", "expert_a", "expert_b", value))
    return pair_matrix(result_df, layer, value)


def plot_output_overlap(
    result_df: "pd.DataFrame", figure: "Figure", *, value: str = "cosine"
) -> "list[Axes]":
    """Draw how alike the outputs of two experts are, a panel for each layer.

    Parameters
    ----------
    result_df
        The rows of ``output-overlap``.
    figure
        An empty figure.
    value
        ``cosine``, in colours that meet at 0, or ``cka``.

    Returns
    -------
    list of Axes
        One for each layer, in order.
    """
    import numpy as np

    check_value(value, _LABELS)
    require_columns(result_df, ("layer", "expert_a", "expert_b", value))
    if result_df[value].isna().all():
        raise UsageError(f"no pair of experts has a {value} to draw")
    layers = layers_of(result_df)
    if len(layers) > MOST_PANELS:
        raise UsageError(
            f"{len(layers)} layers are too many for one figure: {MOST_PANELS} at most",
            "name one: -p layer NUMBER",
        )
    matrices = [output_overlap_matrix(result_df, layer, value=value) for layer in layers]
    values = np.stack(matrices)
    colours = around_zero(values) if value == "cosine" else up_from_zero(values)
    experts = range(len(matrices[0]))
    panels = [
        Panel(f"layer {layer}", matrix, experts, experts)
        for layer, matrix in zip(layers, matrices, strict=True)
    ]
    named = "expert" if len(panels) > 1 else "expert (grey: too few tokens)"
    return draw_grid(figure, panels, colours, _LABELS[value], ("expert", named))


def _paint_output_overlap(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(grid_height(frame["layer"].nunique()))
    plot_output_overlap(frame, figure, **options)
    return figure


OUTPUT_OVERLAP = Plot(
    "how alike the outputs of two experts of a layer are for the same tokens",
    _paint_output_overlap,
    {"value": str},
)
