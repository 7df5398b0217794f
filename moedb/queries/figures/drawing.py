"""Write the figure of a named analysis into a file, with a line that says where it comes from."""

import io
import textwrap
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean
from moedb.queries.figures.registry import PLOTS
from moedb.queries.results.cells import json_value
from moedb.queries.results.export import empty_error, write_with_sidecar
from moedb.queries.results.files import check_folder
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_ENDINGS = (".pdf", ".png", ".svg")

_FOOTER_GREY = "0.45"
_FOOTER_SIZE = 4.5
_FOOTER_CHARACTERS_PER_INCH = 27
_CHARACTERS_PER_INCH = 15


def style_file() -> str:
    """Return the path of the style file, for ``matplotlib.style.context``."""
    return str(resources.files("moedb.queries.figures.parts") / "moedb.mplstyle")


def draw(
    name: str, result: Result, path: str | Path, *, allow_empty: bool = False, **options: Any
) -> list[Path]:
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
        If there is no such figure, ending, option or value, or the result has no rows: then what is
        at ``path`` stays as it is.
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
    if frame.empty and not allow_empty:
        raise empty_error(path, result.why_empty())

    import matplotlib.style

    with matplotlib.style.context(["default", style_file()]):
        if frame.empty:
            figure = _paint_nothing(result.why_empty())
        else:
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
    return write_with_sidecar(path, [content], lambda: result.provenance, lambda: record)


def _paint_nothing(reason: str) -> "Figure":
    """A figure that says why it shows nothing."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    width = mpl.rcParams["figure.figsize"][0]
    text = visible(f"no rows: {reason}").replace("$", r"\$")
    figure = Figure(figsize=(width, 1.0))
    wrapped = textwrap.fill(text, int(width * _CHARACTERS_PER_INCH))
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
