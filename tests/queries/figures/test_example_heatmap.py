"""The figure of routing by example: its cells, its groups, its bands."""

from collections.abc import Iterator

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.drawing import style_file
from moedb.queries.figures.examples import (
    bands_of,
    plot_routing_by_example,
    plot_routing_by_example_bands,
)
from tests.support.drawn.ioi_frames import routed

GROUPS = [("clean", "2", 3), ("clean", "10", 2), ("corrupted", "2", 1), ("corrupted", None, 2)]
WIDTHS = {0: 4, 2: 6, 3: 5}


@pytest.fixture
def figure() -> Iterator[Figure]:
    with matplotlib.style.context(["default", style_file()]):
        yield Figure(figsize=(7.0, 3.0))


def cells(ax: Axes) -> np.ndarray:
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def labels(ax: Axes, axis: str) -> dict[str, float]:
    found = getattr(ax, f"{axis}axis")
    texts = [text.get_text() for text in found.get_ticklabels()]
    return dict(zip(texts, found.get_ticklocs(), strict=True))


@pytest.mark.parametrize("value", ["weight", "share"])
def test_each_choice_is_a_cell_and_nothing_else_is(figure: Figure, value: str) -> None:
    frame = routed(WIDTHS, GROUPS)
    ax = plot_routing_by_example(frame, figure.subplots(), value=value)
    matrix = cells(ax)
    assert matrix.shape == (8, 15)
    first_column = {0: 0, 2: 4, 3: 10}
    for row in frame.itertuples():
        cell = matrix[row.example_id // 7, first_column[row.layer] + row.expert]
        assert cell == getattr(row, value)
    assert np.isfinite(matrix).sum() == len(frame)
    assert tuple(ax.images[0].cmap.get_bad()) == (1.0, 1.0, 1.0, 1.0)


def test_layers_and_groups_are_named_in_their_middle(figure: Figure) -> None:
    ax = plot_routing_by_example(routed(WIDTHS, GROUPS), figure.subplots())
    assert labels(ax, "x") == {"0": 1.5, "2": 6.5, "3": 12.0}
    assert labels(ax, "y") == {
        "clean 2": 1.0,
        "clean 10": 3.5,
        "corrupted 2": 5.0,
        "corrupted": 6.5,
    }
    assert ax.get_xlabel() == "layer, and in each its experts"
    assert ax.get_ylabel() == "example, by template"
    assert [line.get_xdata()[0] for line in ax.lines] == [3.5, 9.5]
    heights = {
        collection.get_segments()[0][0][1]: collection.get_linewidth()[0]
        for collection in ax.collections
    }
    assert sorted(heights) == [2.5, 4.5, 5.5]
    assert heights[4.5] > heights[2.5] == heights[5.5]


def test_one_split_is_not_named_and_no_label_gives_no_groups(figure: Figure) -> None:
    ax, other = figure.subplots(2)
    plot_routing_by_example(routed({1: 4}, GROUPS[:2]), ax)
    assert list(labels(ax, "y")) == ["2", "10"]
    plot_routing_by_example(routed({1: 4}, [("clean", None, 5)]), other)
    assert other.get_ylabel() == "example"
    assert not other.collections


def test_a_single_layer_has_its_experts_numbered(figure: Figure) -> None:
    ax = plot_routing_by_example(routed({5: 7}, GROUPS), figure.subplots())
    assert (ax.get_title(), ax.get_xlabel()) == ("layer 5", "expert")
    assert list(labels(ax, "x")) == [str(expert) for expert in range(7)]


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [(1, [1]), (6, [6]), (8, [8]), (9, [5, 4]), (17, [6, 6, 5]), (24, [8] * 3), (60, [10] * 6)],
)
def test_layers_are_shared_out_over_bands(layers: int, sizes: list[int]) -> None:
    bands = bands_of(routed(dict.fromkeys(range(3, 3 + layers), 60), [("clean", "1", 1)]))
    assert [len(band) for band in bands] == sizes
    assert [layer for band in bands for layer in band] == list(range(3, 3 + layers))


def test_a_layer_wider_than_a_band_has_one_of_its_own() -> None:
    assert bands_of(routed({0: 512, 1: 512}, [("clean", "1", 1)])) == [[0], [1]]


def test_too_many_experts_for_a_page_are_refused() -> None:
    one = [("clean", "1", 1)]
    assert len(bands_of(routed(dict.fromkeys(range(48), 128), one))) == 6
    with pytest.raises(UsageError, match="2560 experts side by side") as caught:
        bands_of(routed(dict.fromkeys(range(58), 256), one))
    assert caught.value.hint == "narrow it: -p layer LAYER"


def test_many_small_layers_are_numbered_at_even_steps(figure: Figure) -> None:
    frame = routed(dict.fromkeys(range(60), 4), GROUPS)
    ax = plot_routing_by_example(frame, figure.subplots())
    places = list(labels(ax, "x").values())
    assert 5 < len(places) < 40
    assert len(set(np.diff(places))) == 1


def test_bands_have_one_scale_and_cells_of_one_width(figure: Figure) -> None:
    frame = routed(dict.fromkeys(range(9), 60), [("clean", "1", 30)])
    frame.loc[0, "weight"] = 100.0
    axes = plot_routing_by_example_bands(frame, figure)
    assert [list(labels(ax, "x")) for ax in axes] == [list("01234"), list("5678")]
    assert {ax.get_xlim() for ax in axes} == {(-0.5, 299.5)}
    assert len({ax.images[0].get_clim() for ax in axes}) == 1
    # one large weight does not pale all others
    assert axes[0].images[0].get_clim()[1] < 1.0
    bar = axes[0].images[0].colorbar
    assert bar.extend == "max"
    assert bar.ax.get_ylabel() == "weight"
    assert [ax.get_xlabel() for ax in axes] == ["", "layer, and in each experts 0 to 59"]


def test_rows_finer_than_a_pixel_are_not_dropped(figure: Figure) -> None:
    few = plot_routing_by_example_bands(routed({0: 4}, [("clean", "1", 300)], 1), figure)
    assert few[0].images[0].get_interpolation() == "nearest"
    figure.clear()
    many = plot_routing_by_example_bands(routed({0: 4}, [("clean", "1", 2500)], 1), figure)
    assert many[0].images[0].get_interpolation() == "auto"


def test_refusals(figure: Figure) -> None:
    frame = routed(WIDTHS, GROUPS)
    ax = figure.subplots()
    with pytest.raises(UsageError, match="more than one row"):
        plot_routing_by_example(pd.concat([frame, frame]), ax)
    with pytest.raises(UsageError, match="lacks weight"):
        plot_routing_by_example(frame.drop(columns="weight"), ax)
    with pytest.raises(UsageError, match="lacks n_experts"):
        bands_of(frame.drop(columns="n_experts"))
    with pytest.raises(UsageError, match="no value 'rank'"):
        plot_routing_by_example(frame, ax, value="rank")
