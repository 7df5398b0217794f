"""What tests of figures share: rows made into results, and whether what is drawn can be read."""

from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from moedb.queries.results.result import Result
from tests.support.stores.result_samples import rows_result


def frame_result(frame: pd.DataFrame) -> Result:
    types = {"i": "INTEGER", "f": "DOUBLE", "O": "VARCHAR"}
    columns = [(str(name), types.get(frame[name].dtype.kind, "VARCHAR")) for name in frame]
    return rows_result(columns, frame.astype(object).where(frame.notna(), None).values.tolist())


def drawn_labels(axis: Axis) -> list[Text]:
    """The tick labels within the limits of an axis, each with a text."""
    ticks = axis._update_ticks()  # type: ignore[attr-defined]
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def assert_readable(drawn: Figure, footer: bool = True) -> None:
    """Labels of one axis do not overlap, and every text lies within the figure."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer: Any = canvas.get_renderer()
    whole = drawn.bbox
    texts: list[Any] = list(drawn.texts)
    for ax in drawn.axes:
        if not ax.axison:
            continue
        sides: Any = ax
        texts += [ax.title, sides._left_title, sides._right_title, ax.xaxis.label, ax.yaxis.label]
        legend = ax.get_legend()
        texts += [] if legend is None else legend.get_texts()
        for axis, way in ((ax.xaxis, "x"), (ax.yaxis, "y")):
            labels = drawn_labels(axis)
            boxes = [label.get_window_extent(renderer) for label in labels]
            spans = sorted((getattr(box, f"{way}0"), getattr(box, f"{way}1")) for box in boxes)
            assert all(one[1] <= two[0] for one, two in pairwise(spans))
            texts += labels
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    for box in boxes:  # to two pixels: releases of matplotlib differ by as much
        assert box.x0 >= whole.x0 - 2
        assert box.x1 <= whole.x1 + 2
        assert box.y0 >= whole.y0 - 2
        assert box.y1 <= whole.y1 + 2
    if footer:
        line = drawn.texts[-1].get_window_extent(renderer)
        assert sum(box.overlaps(line) for box in boxes) == 1
