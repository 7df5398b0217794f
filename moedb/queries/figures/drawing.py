"""Write the figure of a named analysis into a file, with a line that says where it comes from."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean
from moedb.queries.figures.parts.figure import figure_width, new_figure
from moedb.queries.figures.parts.layout import Layout, add_footer, cut_off_text, set_title
from moedb.queries.figures.registry import PLOTS
from moedb.queries.results.cells import json_value
from moedb.queries.results.export import empty_error, write_with_sidecar
from moedb.queries.results.files import check_folder
from moedb.queries.results.result import Result
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_ENDINGS = (".pdf", ".png", ".svg")

_CHARACTERS_PER_INCH = 15
_WIDER = "give it more, such as --width text (in Python: Layout(width=7)), or less to show"
_HEIGHT = 1.0
"""Of a figure that shows nothing, in inches; the others know theirs."""


def style_file() -> str:
    """Return the path of the style file, for ``matplotlib.style.context``."""
    return str(resources.files("moedb.queries.figures.parts") / "moedb.mplstyle")


def draw(
    name: str,
    result: Result,
    path: str | Path,
    layout: Layout | None = None,
    *,
    allow_empty: bool = False,
    **options: Any,
) -> list[Path]:
    """Draw the figure of a named query into a file.

    A line at the bottom names model and run, and ``<path>.provenance.json`` says where the values
    come from, whether there is that line or not. The same result gives the same bytes.

    Parameters
    ----------
    name
        One of :data:`PLOTS`.
    result
        The rows of the named query; it runs now.
    path
        A file that ends in .pdf, .png or .svg.
    layout
        Width, title, and whether there is the line at the bottom.
    allow_empty
        Whether to draw a result without rows: a figure that says why it shows nothing.
    **options
        Those of the figure, as its entry in :data:`PLOTS` has them: ``value``, ``layer``, ``top``.

    Returns
    -------
    list of Path
        The files written: the figure, its sidecar.

    Raises
    ------
    UsageError
        If there is no such figure, ending, option or value, the width is too small, or the result
        has no rows: then what is at ``path`` stays as it is.
    """
    path, layout = Path(path), layout or Layout()
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
    if frame.empty and not allow_empty:
        raise empty_error(path, result.why_empty())

    import matplotlib.style

    width = layout.width or PLOTS[name].width
    size: dict[str, Any] = {"figure.figsize": (width, _HEIGHT)}
    with matplotlib.style.context(["default", style_file(), size]), _refusing_to_squeeze(width):
        if frame.empty:
            figure = _paint_nothing(result.why_empty())
        else:
            figure = PLOTS[name].paint(frame, **chosen)
        if layout.title is not None:
            set_title(figure, layout.title)
        if layout.footer:
            add_footer(figure, result.footer)
        if layout.width is not None:
            _refuse_cut_text(figure, width)
        content = _figure_bytes(figure, ending.removeprefix("."))
    record = {
        "format": ending.removeprefix("."),
        "plot": name,
        "options": json_value(chosen),
        "layout": asdict(layout),
        "columns": [
            {"name": column, "type": sql_type}
            for column, sql_type in zip(result.columns, result.types, strict=True)
        ],
        "n_rows": len(frame),
    }
    return write_with_sidecar(path, [content], lambda: result.provenance, lambda: record)


@contextmanager
def _refusing_to_squeeze(width: float) -> Iterator[None]:
    """Refuse a figure whose text leaves no room for its axes, which matplotlib only warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*axes sizes collapsed to zero")
        try:
            yield
        except UserWarning as warning:
            raise UsageError(
                f"the figure's names and numbers leave no room at a width of {width:g} inches",
                _WIDER,
            ) from warning


def _refuse_cut_text(figure: "Figure", width: float) -> None:
    text = cut_off_text(figure)
    if text is not None:
        raise UsageError(f"at a width of {width:g} inches this is cut off: {text!r}", _WIDER)


def _paint_nothing(reason: str) -> "Figure":
    """A figure that says why it shows nothing."""
    text = visible(f"no rows: {reason}").replace("$", r"\$")
    figure = new_figure(_HEIGHT)
    wrapped = textwrap.fill(text, int(figure_width() * _CHARACTERS_PER_INCH))
    figure.text(0.5, 0.5, wrapped, ha="center", va="center")
    return figure


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


def _settle_places(figure: "Figure") -> None:
    """Lay the figure out once and round where its axes stand.

    What places them adds up in an order that differs from draw to draw, so the last bits of the
    places do, and with them the names that an SVG makes of those.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        left, bottom, width, height = ax.get_position(original=True).bounds
        ax.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def _figure_bytes(figure: "Figure", format: str) -> bytes:
    undated: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {},
    }
    _settle_places(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=undated[format])
    return buffer.getvalue()
