"""What is drawn of labels of experts is what their rows say."""

import numpy as np
import pandas as pd
import pytest

from moedb.errors import UsageError
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import labelled_experts


def test_each_expert_has_its_row_in_both_panels() -> None:
    frame = labelled_experts(10)
    panels = PLOTS["labelled-experts"].paint(frame.sample(frac=1, random_state=2)).axes
    rows = frame.sort_values(["layer", "expert"])
    names = [text.get_text() for text in panels[0].get_yticklabels()]
    experts = zip(rows["layer"], rows["expert"], strict=True)
    assert [name.split()[0] for name in names] == [f"{layer}.{expert}" for layer, expert in experts]
    for ax, kind in zip(panels, ("detection", "fuzzing"), strict=True):
        assert ax.get_title() == kind
        lines = {str(line.get_label()): line for line in ax.lines}
        for label, column in (("always yes", "yes"), ("another expert's label", "other")):
            np.testing.assert_allclose(lines[label].get_xdata(), rows[f"{kind}_{column}"])
            np.testing.assert_array_equal(lines[label].get_ydata(), range(10))
        (bars,) = ax.containers
        points, _, (ends,) = bars  # type: ignore[misc]
        np.testing.assert_allclose(points.get_xdata(), rows[f"{kind}_f1"])
        found = [segment[:, 0] for segment in ends.get_segments()]
        np.testing.assert_allclose(found, rows[[f"{kind}_low", f"{kind}_high"]])


def test_experts_without_scores_are_left_out_and_sets_told_apart() -> None:
    frame = labelled_experts(4, ("a", "b"))
    scores = [name for name in frame if name.startswith(("detection", "fuzzing"))]
    frame.loc[frame["expert"] == 7, scores] = np.nan
    frame.loc[frame["expert"] == 14, [name for name in scores if name[0] == "f"]] = np.nan
    ax = PLOTS["labelled-experts"].paint(frame).axes[0]
    names = [" ".join(text.get_text().split()[:2]) for text in ax.get_yticklabels()]
    assert names == ["a 0.0", "a 0.14", "a 0.21", "b 0.0", "b 0.14", "b 0.21"]
    with pytest.raises(UsageError, match="no label of an expert has a score"):
        PLOTS["labelled-experts"].paint(frame[frame["expert"] == 7])
    with pytest.raises(UsageError, match="more than one row for an expert"):
        PLOTS["labelled-experts"].paint(pd.concat([frame, frame]))
