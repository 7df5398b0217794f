"""What is drawn of effects is what their rows say."""

import numpy as np
import pandas as pd
import pytest

from moedb.errors import UsageError
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import label_effects

SERIES = ("fits", "other", "control_own")


def test_each_expert_has_a_line_with_three_points() -> None:
    rows = label_effects(5)
    rows.loc[2, ["other", "other_low", "other_high"]] = np.nan
    rows.loc[3, ["fits_low", "fits_high"]] = np.nan
    (ax,) = PLOTS["label-effects"].paint(rows.sample(frac=1, random_state=0)).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        f"3.{expert} label no {expert}" for expert in range(5)
    ]
    for container, group, place in zip(ax.containers, SERIES, (-0.24, 0.0, 0.24), strict=True):
        points, _, (bars,) = container  # type: ignore[misc]
        x, y = points.get_data()
        np.testing.assert_allclose(x, rows[group])
        np.testing.assert_allclose(y, np.arange(5) + place)
        ends = np.array([segment[:, 0] for segment in bars.get_segments() if len(segment)])
        held = rows[rows[group].notna()]
        low = held[f"{group}_low"].fillna(held[group])
        high = held[f"{group}_high"].fillna(held[group])
        ends = ends[np.isfinite(ends).all(axis=1)]
        np.testing.assert_allclose(ends, np.column_stack([low, high]))
    low, high = ax.get_ylim()
    assert low > high  # the first expert stands on top


def test_refusals() -> None:
    rows = label_effects(3)
    with pytest.raises(UsageError, match="more than one row for a layer and an expert"):
        PLOTS["label-effects"].paint(pd.concat([rows, rows]))
    with pytest.raises(UsageError, match="65 experts are too many for one figure: 64 at most"):
        PLOTS["label-effects"].paint(label_effects(65))
    with pytest.raises(UsageError, match="no effects to draw"):
        PLOTS["label-effects"].paint(rows[:0])
    with pytest.raises(UsageError, match="lacks control_own"):
        PLOTS["label-effects"].paint(rows.drop(columns="control_own"))
