"""What is drawn of probes is what their rows say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from moedb.errors import UsageError
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import probe_curves


def line(ax: Axes, label: str) -> list[tuple[float, float]]:
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return [(float(x), float(y)) for x, y in np.column_stack([found.get_data()]).T]


@pytest.mark.parametrize("value", ["f1", "balanced_accuracy"])
def test_each_protocol_has_its_panel(value: str) -> None:
    rows = probe_curves()
    panels = PLOTS["probe-curves"].paint(rows, value=value).axes
    assert [ax.get_title() for ax in panels] == ["documents", "herbst2026"]
    columns = {"chosen": value, "all, by their tokens": f"{value}_mean"}
    if value == "f1":
        columns |= {"best on test": "f1_best_on_test", "always yes": "f1_always_yes"}
    for ax in panels:
        of = rows[rows["protocol"] == ax.get_title()]
        true, shuffled = of[of["labels"] == "true"], of[of["labels"] == "shuffled"]
        for label, column in columns.items():
            assert line(ax, label) == list(zip(true["k"], true[column], strict=True))
        drawn = line(ax, "chosen, labels shuffled")
        assert drawn == list(zip(shuffled["k"], shuffled[value], strict=True))


def test_two_keys_are_refused() -> None:
    rows = pd.concat([probe_curves(), probe_curves().assign(key="digit")])
    with pytest.raises(UsageError, match="more than one row for a protocol and a k"):
        PLOTS["probe-curves"].paint(rows)
