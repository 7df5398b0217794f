"""Square matrices side by side, a panel for each layer, on one scale of colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.queries.figures.parts.estimates.marks import LIFT_NOTE, dot_note, mark_cells
from moedb.queries.figures.parts.figure import TALLEST, figure_of, figure_width
from moedb.queries.figures.parts.frames import require_one_row
from moedb.queries.figures.parts.heatmap import Colours, bar_ends, colour_bar, heatmap
from moedb.queries.figures.parts.layout import add_note

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_PANELS = 48
"""Panels that a figure has room for."""


@dataclass(frozen=True)
class Panel:
    """A matrix of a grid.

    Attributes
    ----------
    title
        What tells it from the others.
    matrix
        Shape (rows, columns).
    rows, columns
        Their names; empty where there is no room for them.
    as_chance
        Shape (rows, columns): the cells that are not told from chance; None where that is unknown.
    """

    title: str
    matrix: "np.ndarray[Any, Any]"
    rows: Sequence[object]
    columns: Sequence[object]
    as_chance: "np.ndarray[Any, Any] | None" = None


def grid_columns(n_panels: int) -> int:
    """Return how many panels stand side by side."""
    return min(max(1, math.ceil(math.sqrt(n_panels))), 4)


def grid_height(n_panels: int) -> float:
    """Return the height in inches that square panels take; of one, that of a figure of its own."""
    if n_panels == 1:
        return min(figure_width() - 0.5, TALLEST)
    n_columns = grid_columns(n_panels)
    panel = (figure_width() - 0.8) / n_columns
    return min(0.45 + (panel + 0.1) * math.ceil(n_panels / n_columns), TALLEST)


def draw_grid(
    figure: "Figure",
    panels: Sequence[Panel],
    colours: Colours,
    colour_label: str,
    names: tuple[str, str],
) -> "list[Axes]":
    """Draw matrices on one scale, with one colour bar.

    Parameters
    ----------
    figure
        An empty figure.
    panels
        The matrices.
    colours
        The scale.
    colour_label
        What the colours show, with the unit.
    names
        What is on y and on x.

    Returns
    -------
    list of Axes
        One for each panel, in order.
    """
    n_columns = grid_columns(len(panels))
    grid = figure.subplots(math.ceil(len(panels) / n_columns), n_columns, squeeze=False)
    every = list(grid.flat)
    axes = every[: len(panels)]
    for position, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        heatmap(ax, panel.matrix, panel.rows, panel.columns, None, **colours)
        ax.set_aspect("equal")
        ax.set_title(panel.title)
        if position % n_columns == 0:
            ax.set_ylabel(names[0])
        else:
            ax.tick_params(labelleft=False)
        if position + n_columns >= len(panels):
            ax.set_xlabel(names[1])
        else:
            ax.tick_params(labelbottom=False)
    for ax in every[len(panels) :]:
        ax.set_axis_off()
    ends = {bar_ends(ax.images[0]) for ax in axes}
    below, above = ends & {"min", "both"}, ends & {"max", "both"}
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    shape = {"shrink": 0.8, "aspect": 30} if len(panels) > 1 else {"aspect": 25}
    bar = figure.colorbar(axes[0].images[0], ax=every, pad=0.02, extend=extend, **shape)
    colour_bar(bar, colour_label)
    mark_panels(axes, [panel.as_chance for panel in panels])
    return axes


def mark_panels(axes: "Sequence[Axes]", masks: "Sequence[np.ndarray[Any, Any] | None]") -> None:
    """Mark the cells whose lift is not told from 1, where that is known, and say so below."""
    known = [(ax, mask) for ax, mask in zip(axes, masks, strict=True) if mask is not None]
    if known:
        shown = [mask for _, mask in known]
        add_note(figure_of(axes[0]), dot_note(LIFT_NOTE, shown))
        mark_cells([ax for ax, _ in known], shown)


def layers_of(frame: "pd.DataFrame") -> list[int]:
    """Return the layers of a frame, in order."""
    return sorted(int(layer) for layer in frame["layer"].unique())


def rows_of_layer(frame: "pd.DataFrame", layer: int) -> "pd.DataFrame":
    """Return the rows of one layer; refuse one that the frame has none of."""
    layers = layers_of(frame)
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        raise UsageError(f"the result has no layer {layer}", f"layers: {listed}")
    return frame[frame["layer"] == layer]


def pair_matrix(
    frame: "pd.DataFrame", layer: int, value: str
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the matrix of pairs of experts of one layer, each of which has one row.

    Parameters
    ----------
    frame
        The columns layer, expert_a, expert_b and ``value``.
    layer
        The layer.
    value
        The column with the values.

    Returns
    -------
    ndarray
        Shape (experts, experts), symmetric; NaN on the diagonal, and for a pair without a row or
        a value.
    """
    import numpy as np

    pairs = rows_of_layer(frame, layer)
    require_one_row(pairs, ("expert_a", "expert_b"), f"a pair of layer {layer}")
    n_experts = 1 + int(frame[["expert_a", "expert_b"]].to_numpy().max())
    a, b = pairs["expert_a"].to_numpy(int), pairs["expert_b"].to_numpy(int)
    matrix = np.full((n_experts, n_experts), np.nan)
    matrix[a, b] = matrix[b, a] = pairs[value].to_numpy(float)
    return matrix


def most_used(uses: "np.ndarray[Any, Any]", top: int | None) -> list[int]:
    """Return the experts to show: all by number, or the ``top`` most used, the most used first.

    Parameters
    ----------
    uses
        How often each expert was used. Shape (experts,).
    top
        How many to keep; all unless given.
    """
    experts = list(range(len(uses)))
    if top is None:
        return experts
    if top < 2:
        raise UsageError(f"top {top} leaves no pair: 2 experts or more")
    return sorted(experts, key=lambda expert: (-uses[expert], expert))[:top]
