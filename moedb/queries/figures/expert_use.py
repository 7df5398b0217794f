"""Heat maps of the named analyses.

The functions take ``ax`` and a frame, draw, and return ``ax``. Layers are on y, experts on x.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_MISSING = "0.85"
_SCALE_QUANTILE = 0.995
_FREQUENCY_LABELS = {
    "frequency": "frequency (share of tokens)",
    "share": "share of routing decisions",
    "n_decisions": "routing decisions",
}
_PAIR_LABELS = {
    "jaccard": "co-activation (Jaccard index of tokens)",
    "lift": "lift (co-activation over independence)",
    "p_b_given_a": "P(column | row), share of tokens",
    "n_both": "tokens that use both experts",
}
_TRANSPOSED = {"p_b_given_a": "p_a_given_b"}


def heatmap(
    ax: "Axes",
    matrix: "np.ndarray[Any, Any]",
    row_labels: Sequence[object],
    column_labels: Sequence[object],
    colour_label: str | None,
    *,
    norm: "Normalize | None" = None,
    cmap: str | None = None,
    missing: str = _MISSING,
) -> "Axes":
    """Draw a matrix, rows from the top.

    Parameters
    ----------
    ax
        Where to draw.
    matrix
        Shape (rows, columns). NaN is drawn in the colour ``missing``: there is no such cell.
    row_labels, column_labels
        Their names; as many ticks as there is room for carry one.
    colour_label
        The label of the colour bar, with the unit. Without it there is no colour bar.
    norm
        How values become colours; from 0 to the largest value unless given.
    cmap
        The name of a colour map, the style's unless given.
    missing
        The colour of NaN; grey unless given.

    Returns
    -------
    Axes
        The same ``ax``.
    """
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import Normalize

    if norm is None:
        finite = matrix[np.isfinite(matrix)]
        norm = Normalize(0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    colours = mpl.colormaps[cmap or mpl.rcParams["image.cmap"]].with_extremes(bad=missing)
    image = ax.imshow(matrix, aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    _label_ticks(ax, row_labels, column_labels)
    if colour_label is not None:
        _colour_bar(ax, image, colour_label)
    return ax


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

    if value not in _FREQUENCY_LABELS:
        raise UsageError(f"no value {value!r}", did_you_mean(value, _FREQUENCY_LABELS))
    require_columns(result_df, ("layer", "expert", value))
    if result_df.duplicated(["layer", "expert"]).any():
        raise UsageError("more than one row for an expert of a layer", "narrow it to one run")
    layers = sorted(int(layer) for layer in result_df["layer"].unique())
    experts = range(int(result_df["expert"].max()) + 1)
    matrix = np.full((len(layers), len(experts)), np.nan)
    rows = result_df["layer"].map({layer: row for row, layer in enumerate(layers)})
    matrix[rows.to_numpy(int), result_df["expert"].to_numpy(int)] = result_df[value].to_numpy(float)
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

    if value not in _PAIR_LABELS:
        raise UsageError(f"no value {value!r}", did_you_mean(value, _PAIR_LABELS))
    transposed = _TRANSPOSED.get(value, value)
    require_columns(result_df, ("layer", "expert_a", "expert_b", "n_a", "n_b", value, transposed))
    layers = sorted(int(number) for number in result_df["layer"].unique())
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        raise UsageError(f"the result has no layer {layer}", f"layers: {listed}")
    n_experts = 1 + int(result_df[["expert_a", "expert_b"]].to_numpy().max())
    pairs = result_df[result_df["layer"] == layer]
    if pairs.duplicated(["expert_a", "expert_b"]).any():
        raise UsageError(f"more than one row for a pair of layer {layer}", "narrow it to one run")
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


def require_columns(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Refuse a frame that lacks one of the columns."""
    missing = [column for column in columns if column not in frame]
    if missing:
        listed = ", ".join(map(str, frame.columns))
        raise UsageError(f"the result lacks {', '.join(missing)}", f"columns: {listed}")


def grid_columns(n_layers: int) -> int:
    """Return how many panels stand side by side when every layer has one."""
    return min(max(1, math.ceil(math.sqrt(n_layers))), 4)


def _label_ticks(ax: "Axes", rows: Sequence[object], columns: Sequence[object]) -> None:
    """Label as many rows and columns as there is room for, at even steps."""
    width, height = _size_in_inches(ax)
    for axis, labels, room in ((ax.xaxis, columns, width * 6), (ax.yaxis, rows, height * 8)):
        step = _tick_step(len(labels), max(2, int(room)))
        places = range(0, len(labels), step)
        axis.set_ticks(list(places), [str(labels[place]) for place in places])


def _size_in_inches(ax: "Axes") -> tuple[float, float]:
    from matplotlib.figure import Figure

    figure = ax.get_figure(root=True)
    box = ax.get_position()
    assert isinstance(figure, Figure)  # noqa: S101
    width, height = figure.get_size_inches()
    return float(box.width * width), float(box.height * height)


def _tick_step(n: int, room: int) -> int:
    for scale in (1, 10, 100, 1000, 10_000, 100_000):
        for step in (1, 2, 5):
            if math.ceil(n / (step * scale)) <= room:
                return step * scale
    return n


def _colour_bar(ax: "Axes", image: "AxesImage", label: str) -> None:
    figure = ax.get_figure()
    assert figure is not None  # noqa: S101
    bar = figure.colorbar(image, ax=ax, aspect=25, pad=0.02, extend=bar_ends(image))
    bar.set_label(label)


def bar_ends(image: "AxesImage") -> str:
    """Return which end of the colour bar gets an arrow, as values lie above the scale."""
    import numpy as np

    values = image.get_array()
    top = image.norm.vmax
    if values is None or top is None:
        return "neither"
    return "max" if bool(np.ma.max(np.ma.masked_invalid(values)) > top) else "neither"


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


def _pair_colours(matrix: "np.ndarray[Any, Any]", value: str) -> "tuple[Normalize, str | None]":
    """Return scale and colour map: for lift two colours that meet at 1, else from 0 up.

    The scale ends where 1 in 200 cells lies above, lest a few pairs darken all others.
    """
    import numpy as np
    from matplotlib.colors import Normalize, TwoSlopeNorm

    finite = matrix[np.isfinite(matrix)]
    largest = float(np.quantile(finite, _SCALE_QUANTILE)) if finite.size else 1.0
    if largest <= 0:
        largest = float(finite.max()) or 1.0
    if value == "lift":
        return TwoSlopeNorm(1.0, 0.0, max(largest, 1.0 + 1e-9)), "PuOr"
    return Normalize(0.0, largest), None
