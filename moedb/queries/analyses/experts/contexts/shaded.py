"""Contexts on a terminal: texts whose tokens are shaded by how much the expert wrote there."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, Any

from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SHADES = ("#fff3c4", "#fde08a", "#fdbf5f", "#f9935a", "#ef6548")
"""Backgrounds from the smallest scores to the largest, under black letters."""

MARKS = ("«", "»")
"""What stands around the token that a context is of."""

_NARROWEST = 20
"""Cells that a text has at least."""


def shaded_contexts(rows: Iterable[Mapping[str, Any]], width: int) -> Iterator[str]:
    """Give the lines that show rows of ``top-contexts``, those of an expert together.

    Of each context there is its place, its score and its text. The token that it is of stands
    between marks; tokens that chose the expert are shaded by their score, in fifths of the largest
    one shown for the expert, and underlined where a terminal has no colours.

    Parameters
    ----------
    rows
        The rows, by column.
    width
        Cells of a line of the terminal.
    """
    from rich.text import Text

    console = _console(width)
    for (layer, expert), own in groupby(rows, key=lambda row: (row["layer"], row["expert"])):
        contexts = list(own)
        n = f"{len(contexts)} of {contexts[0]['n_decisions']:,} decisions"
        title = Text.assemble((f"layer {layer}, expert {expert}", "bold"), f"  {n}")
        yield from _hanging(console, "", title, width)
        windows = [json.loads(row["routed"]) for row in contexts]
        largest = max(
            (score for window in windows for _, score in window if score is not None), default=0.0
        )
        scores = [f"{row['score']:.4g}" for row in contexts]
        gutter = [max(len(str(row["place"])) for row in contexts), max(map(len, scores))]
        for row, window, score in zip(contexts, windows, scores, strict=True):
            start = f"{row['place']:>{gutter[0]}}  {score:>{gutter[1]}}  "
            yield from _hanging(console, start, _text(row, window, largest, console), width)
        yield ""


def _console(width: int) -> "Console":
    from rich.console import Console

    # no links, no markup and no emoji: what is shown comes from a store
    return Console(
        file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def _text(
    row: Mapping[str, Any],
    window: Sequence[tuple[str, float | None]],
    largest: float,
    console: "Console",
) -> "Text":
    """A context's text, and where it is from."""
    from rich.text import Text

    text = Text()
    before = ""
    for number, (token, score) in enumerate(window):
        is_marked = number == _marked(row, window)
        style = _style(score, largest, console)
        if is_marked:
            # the blank before a word stands where it is read, in the word's own shade
            blank = " " if before and token[:1] == " " and token[1:2].strip() else ""
            shown = blank + MARKS[0] + visible(token[len(blank) :]) + MARKS[1]
            style = f"bold {style}"
        else:
            shown = _in_text(token, before, is_last=number == len(window) - 1)
        text.append(shown, style=style.strip())
        before = token or before
    text.append(f"  example {row['example_id']}, position {row['position']}", style="dim")
    return text


def _marked(row: Mapping[str, Any], window: Sequence[tuple[str, float | None]]) -> int:
    """Which of a window's tokens the context is of: that after the text before it."""
    length = 0
    for number, (token, score) in enumerate(window):
        if length == len(row["before"]) and token == row["token"] and score == row["score"]:
            return number
        length += len(token)
    return -1


def _in_text(token: str, before: str, *, is_last: bool) -> str:
    """A token as part of a text: a single space between words is one."""
    left = "" if not before or before.endswith(" ") else "x"
    right = "" if is_last else "x"
    shown = visible(f"{left}{token}{right}")
    return shown[len(left) : len(shown) - len(right)]


def _style(score: float | None, largest: float, console: "Console") -> str:
    if score is None or largest <= 0:
        return ""
    if console.no_color or console.color_system is None:
        return "underline"
    shade = SHADES[max(0, ceil(len(SHADES) * score / largest) - 1)]
    return f"black on {shade}"


def _hanging(console: "Console", start: str, text: "Text", width: int) -> Iterator[str]:
    """A text beside what stands before it, or below it where there is no room."""
    room = width - len(start)
    if start and room < _NARROWEST:
        yield from _lines(console, [start.rstrip()])
        start, room = "", width
    for number, line in enumerate(text.wrap(console, max(room, 2))):
        yield from _lines(console, [start if number == 0 else " " * len(start), line])


def _lines(console: "Console", parts: "Sequence[Text | str]") -> Iterator[str]:
    from rich.text import Text

    with console.capture() as captured:
        console.print(Text.assemble(*parts), end="", no_wrap=True, overflow="ignore", crop=False)
    yield captured.get()
