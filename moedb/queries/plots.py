"""Figures of the named analyses.

The functions take ``ax`` and a frame, draw, and return ``ax``; :func:`draw` makes the file. Layers
are on y, experts on x. Everything is set for one column of a paper by ``moedb.mplstyle``.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moedb.errors import UsageError, did_you_mean
from moedb.queries.export import check_folder, write_with_sidecar
from moedb.queries.result import Provenance, Result, json_value
from moedb.queries.sheets import visible

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

FIGURE_ENDINGS = (".pdf", ".png", ".svg")

_MISSING = "0.85"
_FOOTER_GREY = "0.45"
_FOOTER_SIZE = 4.5
_FOOTER_CHARACTERS_PER_INCH = 27
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

Number = TypeVar("Number", int, float)


def style_file() -> str:
    """Return the path of the style file, for ``matplotlib.style.context``."""
    return str(resources.files("moedb.queries") / "moedb.mplstyle")


def heatmap(
    ax: "Axes",
    matrix: "np.ndarray[Any, Any]",
    row_labels: Sequence[object],
    column_labels: Sequence[object],
    colour_label: str | None,
    *,
    norm: "Normalize | None" = None,
    cmap: str | None = None,
) -> "Axes":
    """Draw a matrix, rows from the top.

    Parameters
    ----------
    ax
        Where to draw.
    matrix
        Shape (rows, columns). NaN is drawn grey: there is no such cell.
    row_labels, column_labels
        Their names; as many ticks as there is room for carry one.
    colour_label
        The label of the colour bar, with the unit. Without it there is no colour bar.
    norm
        How values become colours; from 0 to the largest value unless given.
    cmap
        The name of a colour map, the style's unless given.

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
    colours = mpl.colormaps[cmap or mpl.rcParams["image.cmap"]].with_extremes(bad=_MISSING)
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
    _require(result_df, ("layer", "expert", value))
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
    _require(result_df, ("layer", "expert_a", "expert_b", "n_a", "n_b", value, transposed))
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

    _require(result_df, ("layer",))
    layers = sorted(int(layer) for layer in result_df["layer"].unique())
    matrices = [co_activation_matrix(result_df, layer, value=value, top=top) for layer in layers]
    norm, cmap = _pair_colours(np.stack([matrix for matrix, _ in matrices]), value)
    n_columns = _grid_columns(len(layers))
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
        "max" if any(_extend(ax.images[0]) == "max" for ax in axes[: len(layers)]) else "neither"
    )
    bar = figure.colorbar(
        axes[0].images[0], ax=axes, shrink=0.8, aspect=30, pad=0.02, extend=extend
    )
    bar.set_label(_PAIR_LABELS[value])
    return axes[: len(layers)]


@dataclass(frozen=True)
class Plot:
    """A figure that :func:`draw` can make.

    Attributes
    ----------
    title
        What it shows.
    paint
        Draws a frame on a new figure of the right size, with options.
    options
        The options it takes, and how each is read.
    """

    title: str
    paint: "Callable[..., Figure]"
    options: Mapping[str, Callable[[Any], Any]]


def _new_figure(height: float) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    return Figure(figsize=(mpl.rcParams["figure.figsize"][0], height))


def _paint_expert_frequency(frame: "pd.DataFrame", **options: Any) -> "Figure":
    _require(frame, ("layer", "expert"))
    figure = _new_figure(min(max(1.8, 1.1 + 0.12 * frame["layer"].nunique()), 4.5))
    plot_expert_frequency(frame, figure.subplots(), **options)
    return figure


def _paint_co_activation(
    frame: "pd.DataFrame", layer: int | None = None, **options: Any
) -> "Figure":
    _require(frame, ("layer",))
    n_layers = frame["layer"].nunique()
    if layer is None and n_layers == 1:
        layer = int(frame["layer"].iloc[0])
    if layer is not None:
        figure = _new_figure(2.9)
        plot_co_activation(frame, figure.subplots(), layer, **options)
        return figure
    n_columns = _grid_columns(n_layers)
    panel = 2.6 / n_columns
    figure = _new_figure(0.45 + (panel + 0.1) * math.ceil(n_layers / n_columns))
    plot_co_activation_layers(frame, figure, **options)
    return figure


PLOTS: Mapping[str, Plot] = {
    "expert-frequency": Plot(
        "how often each expert of each layer is used", _paint_expert_frequency, {"value": str}
    ),
    "co-activation": Plot(
        "how much the tokens of two experts coincide",
        _paint_co_activation,
        {"layer": int, "value": str, "top": int},
    ),
}


def draw(name: str, result: Result, path: str | Path, **options: Any) -> list[Path]:
    """Draw the figure of a named query into a file.

    A line at the bottom names model and run, and ``<path>.provenance.json`` says where the values
    come from. The same result gives the same bytes.

    Parameters
    ----------
    name
        One of :data:`PLOTS`.
    result
        The rows of the named query; it runs now.
    path
        A file that ends in .pdf, .png or .svg.
    **options
        Those of the figure: ``value``; for co-activation also ``layer`` and ``top``.

    Returns
    -------
    list of Path
        The files written: the figure, its sidecar.

    Raises
    ------
    UsageError
        If there is no such figure, ending, option or value, or the result has no rows.
    """
    path = Path(path)
    if name not in PLOTS:
        raise UsageError(f"there is no figure of {name!r}", did_you_mean(name, PLOTS))
    ending = path.suffix.lower()
    if ending not in FIGURE_ENDINGS:
        given = f"ending {ending!r}" if ending else "a name without ending"
        raise UsageError(
            f"{path}: {given} is no figure format", did_you_mean(ending, FIGURE_ENDINGS)
        )
    chosen = _read_options(name, options)
    check_folder(path)
    frame = result.df()
    if frame.empty:
        raise UsageError(f"{name}: the result has no rows to draw")

    import matplotlib.style

    with matplotlib.style.context(["default", style_file()]):
        figure = PLOTS[name].paint(frame, **chosen)
        _add_footer(figure, result.provenance)
        content = _figure_bytes(figure, ending.removeprefix("."))
    record = {
        "format": ending.removeprefix("."),
        "plot": name,
        "options": json_value(chosen),
        "columns": [
            {"name": column, "type": sql_type}
            for column, sql_type in zip(result.columns, result.types, strict=True)
        ],
        "n_rows": len(frame),
    }
    return write_with_sidecar(path, content, result.provenance, record)


def _read_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    readers = PLOTS[name].options
    chosen = {}
    for option, value in options.items():
        if option not in readers:
            raise UsageError(f"{name} takes no option {option!r}", did_you_mean(option, readers))
        try:
            chosen[option] = None if value is None else readers[option](value)
        except (TypeError, ValueError):
            wanted = readers[option].__name__
            raise UsageError(f"{name}: {option} is {value!r}, not of type {wanted}") from None
    return {option: value for option, value in chosen.items() if value is not None}


def _figure_bytes(figure: "Figure", format: str) -> bytes:
    undated: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {},
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=undated[format])
    return buffer.getvalue()


def _add_footer(figure: "Figure", provenance: Provenance) -> None:
    """Write the provenance at the bottom, and keep the axes above it."""
    width, height = figure.get_size_inches()
    line = visible(provenance.footer()).replace("$", r"\$")
    lines = textwrap.wrap(line, int(width * _FOOTER_CHARACTERS_PER_INCH)) or [""]
    band = (len(lines) * _FOOTER_SIZE * 1.25 + 3) / 72
    figure.set_size_inches(width, height + band)
    figure.text(
        0.01,
        1.5 / 72 / (height + band),
        "\n".join(lines),
        fontsize=_FOOTER_SIZE,
        color=_FOOTER_GREY,
        ha="left",
        va="bottom",
    ).set_in_layout(False)
    engine = figure.get_layout_engine()
    if engine is not None:
        share = band / (height + band)
        engine.set(rect=(0, share, 1, 1 - share))  # type: ignore[call-arg]


def _require(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        listed = ", ".join(map(str, frame.columns))
        raise UsageError(f"the result lacks {', '.join(missing)}", f"columns: {listed}")


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
    bar = figure.colorbar(image, ax=ax, aspect=25, pad=0.02, extend=_extend(image))
    bar.set_label(label)


def _extend(image: "AxesImage") -> str:
    """Return the end of the colour bar that gets an arrow: values may lie above the scale."""
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


def _grid_columns(n_layers: int) -> int:
    return min(max(1, math.ceil(math.sqrt(n_layers))), 4)
