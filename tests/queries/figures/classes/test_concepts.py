"""What is drawn of concepts is what the rows of probes say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from moedb.errors import UsageError
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import polysemantic, probe_bests


def drawn(ax: Axes, label: str) -> dict[int, float]:
    """By row, what a mark says."""
    (found,) = [each for each in ax.lines if each.get_label() == label]
    x, y = found.get_data()
    return {int(row): float(value) for value, row in zip(x, y, strict=True)}


def names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def test_each_concept_has_its_row_in_the_panel_of_each_protocol() -> None:
    frame = probe_bests(6)
    panels = PLOTS["probe-best"].paint(frame.sample(frac=1, random_state=1)).axes
    assert [ax.get_title() for ax in panels] == ["documents", "herbst2026"]
    first = frame[frame["protocol"] == "documents"].sort_values("f1", ascending=False)
    assert names(panels[0]) == first["value"].tolist()
    for ax in panels:
        rows = frame[frame["protocol"] == ax.get_title()].set_index("value")
        rows = rows.loc[names(panels[0])]
        for label, column in (
            ("always yes", "f1_always_yes"),
            ("chosen, labels shuffled", "f1_shuffled"),
        ):
            assert drawn(ax, label) == dict(enumerate(rows[column]))
        (bars,) = ax.containers
        points, _, (lines,) = bars  # type: ignore[misc]
        at = points.get_ydata().astype(int)
        np.testing.assert_allclose(points.get_xdata(), rows["f1"].to_numpy()[at])
        for row, segment in zip(at, lines.get_segments(), strict=True):
            ends = rows.iloc[row][["f1_low", "f1_high"]].to_numpy(float)
            np.testing.assert_allclose(segment[:, 0], ends)
            assert (segment[:, 1] == row).all()
        assert ax.yaxis_inverted()


def test_a_concept_is_named_by_what_tells_it_from_others() -> None:
    frame = probe_bests(1, ("digit", "upos"))
    frame.loc[frame["key"] == "digit", "value"] = "yes"
    (panel, _) = PLOTS["probe-best"].paint(frame).axes
    assert sorted(names(panel)) == ["digit", "upos=tag 0"]


def test_what_one_protocol_has_alone_has_a_row_below() -> None:
    frame = probe_bests(3)
    only = (frame["protocol"] == "documents") & (frame["value"] == "tag 1")
    panels = PLOTS["probe-best"].paint(frame[~only]).axes
    assert names(panels[0])[-1] == "tag 1"
    assert set(drawn(panels[0], "always yes")) == {0, 1}
    assert set(drawn(panels[1], "always yes")) == {0, 1, 2}


def test_a_concept_without_shuffles_or_interval_is_drawn() -> None:
    frame = probe_bests(3).assign(f1_shuffled=np.nan, f1_low=np.nan, f1_high=np.nan)
    panels = PLOTS["probe-best"].paint(frame).axes
    (bars,) = panels[0].containers
    assert len(bars[0].get_xdata()) == 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.concat([probe_bests(), probe_bests(k=4)]), "several names or sizes"),
        (pd.concat([probe_bests(), probe_bests()]), "more than one row for a concept"),
        (probe_bests(70), "70 concepts are too many for one figure: 61 at most"),
        (probe_bests().drop(columns="f1_low"), "lacks f1_low"),
    ],
)
def test_refusals(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PLOTS["probe-best"].paint(frame)


def test_the_neurons_of_each_layer_are_counted_by_their_concepts() -> None:
    frame = polysemantic(4, 3)
    ax = PLOTS["polysemanticity"].paint(frame).axes[0]
    expected = frame.groupby(["layer", "n_concepts"]).size().unstack(fill_value=0)
    below = np.zeros(3)
    for layer, container in enumerate(ax.containers):
        heights = [bar.get_height() for bar in container]
        assert heights == expected.loc[layer].tolist()
        np.testing.assert_allclose([bar.get_y() for bar in container], below)
        assert [bar.get_x() + bar.get_width() / 2 for bar in container] == [1, 2, 3]
        below += heights
    assert below.sum() == len(frame)
    with pytest.raises(UsageError, match="more than one row for a neuron"):
        PLOTS["polysemanticity"].paint(pd.concat([frame, frame]))
