"""What is around the axes of a figure: its width, its title, the line on where it is from."""

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean
from moedb.queries.figures.parts.figure import COLUMN, TWO_COLUMNS
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"column": COLUMN, "text": TWO_COLUMNS}
"""The widths that have names, in inches: one column of a page, and both."""

_NARROWEST, _WIDEST = 2.0, 20.0
_LONGEST_TITLE = 300

_FOOTER_GREY = "0.45"
_FOOTER_SIZE = 4.5
_FOOTER_CHARACTERS_PER_INCH = 27
_NOTE_SIZE = 6
_NOTE_CHARACTERS_PER_INCH = 21
_TITLE_CHARACTERS_PER_INCH = 14
_SLACK = 3
"""Pixels that a text may stand out of a figure."""
_COLOUR_BAR = "<colorbar>"


@dataclass(frozen=True)
class Layout:
    """What is around the axes of a figure.

    Attributes
    ----------
    width
        In inches; the figure's own unless given.
    title
        A title above the figure. Of a figure with one panel it stands for the panel's own; an
        empty one leaves that out. None keeps what the figure has.
    footer
        Whether a line below names model and run.
    """

    width: float | None = None
    title: str | None = None
    footer: bool = True

    def __post_init__(self) -> None:
        if self.width is not None and not _NARROWEST <= self.width <= _WIDEST:
            raise UsageError(
                f"width {self.width:g} is out of range: {_NARROWEST:g} to {_WIDEST:g} inches"
            )
        if self.title is not None and len(self.title) > _LONGEST_TITLE:
            raise UsageError(
                f"the title has {len(self.title)} characters: {_LONGEST_TITLE} at most"
            )


def read_width(text: str) -> float:
    """Read a width: inches, or a name of :data:`WIDTHS`.

    Examples
    --------
    >>> read_width("column"), read_width("5.5")
    (3.4, 5.5)
    """
    if text in WIDTHS:
        return WIDTHS[text]
    try:
        inches = float(text)
    except ValueError:
        inches = math.nan
    if not math.isfinite(inches):
        named = ", ".join(f"{name} ({width:g} inches)" for name, width in WIDTHS.items())
        hint = did_you_mean(text, WIDTHS) if len(text) > 2 and text.isalpha() else None
        raise UsageError(f"no width {text!r}: a number of inches, {named}", hint)
    return inches


def set_title(figure: "Figure", title: str) -> None:
    """Write a title on top, in place of the one that a single panel has."""
    panels = [ax for ax in figure.axes if ax.axison and ax.get_label() != _COLOUR_BAR]
    if len(panels) == 1:
        panels[0].set_title("", loc="left")
        panels[0].set_title("", loc="center")
    if not title:
        return
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties

    width, height = figure.get_size_inches()
    text = visible(title).replace("$", r"\$")
    lines = textwrap.wrap(text, int(width * _TITLE_CHARACTERS_PER_INCH))
    size = FontProperties(size=mpl.rcParams["figure.titlesize"]).get_size_in_points()
    figure.set_size_inches(width, height + len(lines) * size * 1.25 / 72)
    figure.suptitle("\n".join(lines))


def cut_off_text(figure: "Figure") -> str | None:
    """Return a text of a finished figure that does not lie within it; None if all do.

    The numbers of axes are left out: matplotlib keeps some that it does not draw.
    """
    from matplotlib.text import Text

    figure.draw_without_rendering()
    numbers = {
        text
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for text in axis.findobj(Text)
        if text is not axis.label
    }
    whole = figure.bbox.padded(_SLACK)
    for text in figure.findobj(Text):
        if not isinstance(text, Text) or text in numbers:
            continue
        box = text.get_window_extent()
        inside = whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1)
        if text.get_visible() and text.get_text() and not inside:
            return text.get_text()
    return None


def add_note(figure: "Figure", note: str) -> None:
    """Write a line below the axes on how to read them, and keep the axes above it."""
    if note:
        _add_below(figure, note, _NOTE_CHARACTERS_PER_INCH, {"fontsize": _NOTE_SIZE})


def add_footer(figure: "Figure", footer: str) -> None:
    """Write the line on where it is from at the bottom, and keep the axes above it."""
    style = {"fontsize": _FOOTER_SIZE, "color": _FOOTER_GREY}
    _add_below(figure, footer, _FOOTER_CHARACTERS_PER_INCH, style)


def _add_below(figure: "Figure", text: str, per_inch: int, style: dict[str, Any]) -> None:
    """Write a line at the bottom, below those that are there, and make the figure higher by it."""
    width, height = figure.get_size_inches()
    engine = figure.get_layout_engine()
    _, below, _, _ = (engine.get().get("rect") if engine is not None else None) or (0, 0, 1, 1)
    line = visible(text).replace("$", r"\$")
    lines = textwrap.wrap(line, int(width * per_inch)) or [""]
    band = (len(lines) * style["fontsize"] * 1.25 + 3) / 72
    figure.set_size_inches(width, height + band)
    for note in figure.texts:
        if not note.get_in_layout():
            note.set_y((note.get_position()[1] * height + band) / (height + band))
    figure.text(
        0.01,
        1.5 / 72 / (height + band),
        "\n".join(lines),
        ha="left",
        va="bottom",
        **style,
    ).set_in_layout(False)
    if engine is not None:
        share = (below * height + band) / (height + band)
        engine.set(rect=(0, share, 1, 1 - share))  # type: ignore[call-arg]
