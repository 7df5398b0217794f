"""What is drawn of state and function is what its rows say, less the mean of the shuffles."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import states_and_functions

SERIES = {
    "experts_beyond": ("I(label; expert given cluster)", -0.2),
    "clusters_beyond": ("I(label; cluster given expert)", 0.2),
}


def paint(frame: pd.DataFrame) -> Figure:
    return PLOTS["state-and-function"].paint(frame)


def bars(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of a series (point, 2), and the ends of their bars (point, 2)."""
    (found,) = [each for each in ax.containers if each.get_label() == label]
    points, _, (lines,) = found  # type: ignore[misc]
    ends = np.array([segment[:, 1] for segment in lines.get_segments()])
    return np.column_stack(points.get_data()), ends


def test_a_panel_for_each_key_with_both_series_and_their_nulls() -> None:
    frame = states_and_functions(("upos", "domain", "token"), 4)
    axes = paint(frame.sample(frac=1, random_state=0).sort_values("key", kind="stable")).axes
    assert [ax.get_title() for ax in axes] == ["domain", "token", "upos"]
    for ax in axes:
        rows = frame[frame["key"] == ax.get_title()]
        nulls = [line for line in ax.lines if line.get_marker() == "_"]
        for null, (measure, (label, shift)) in zip(nulls, SERIES.items(), strict=True):
            points, ends = bars(ax, label)
            mean = rows[f"{measure}_null_mean"]
            np.testing.assert_allclose(points[:, 0], rows["layer"] + shift)
            np.testing.assert_allclose(points[:, 1], rows[f"{measure}_less_null"])
            np.testing.assert_allclose(ends[:, 0], rows[f"{measure}_low"] - mean)
            np.testing.assert_allclose(ends[:, 1], rows[f"{measure}_high"] - mean)
            np.testing.assert_allclose(null.get_ydata(), rows[f"{measure}_null_95"] - mean)
        assert ax.get_ylabel() == "bits"


def test_the_legend_names_each_series_above_its_null() -> None:
    (legend,) = paint(states_and_functions()).legends
    (above, null), (other, other_null) = np.array(
        [text.get_text() for text in legend.get_texts()]
    ).reshape(2, 2)
    assert [above, other] == [label for label, _ in SERIES.values()]
    assert null == other_null == "its 95 % point, labels shuffled"


def test_one_example_has_points_without_bars() -> None:
    frame = states_and_functions(("upos",), 3)
    ends = [f"{measure}_{end}" for measure in SERIES for end in ("low", "high")]
    (ax,) = paint(frame.assign(**dict.fromkeys(ends, np.nan))).axes
    points, bar_ends = bars(ax, SERIES["experts_beyond"][0])
    np.testing.assert_allclose(points[:, 1], frame["experts_beyond_less_null"])
    np.testing.assert_array_equal(bar_ends[:, 0], bar_ends[:, 1])


def test_refusals() -> None:
    frame = states_and_functions()
    with pytest.raises(UsageError, match="more than one row for a layer and a key"):
        paint(pd.concat([frame, frame]))
    with pytest.raises(UsageError, match="lacks experts_beyond_low"):
        paint(frame.drop(columns="experts_beyond_low"))
    with pytest.raises(UsageError, match="without shuffles") as caught:
        paint(frame.assign(experts_beyond_null_mean=np.nan))
    assert caught.value.hint == "-p permutations 200"
    with pytest.raises(UsageError, match="9 keys are too many for one figure: 8 at most"):
        paint(states_and_functions(tuple("abcdefghi"), 1))
