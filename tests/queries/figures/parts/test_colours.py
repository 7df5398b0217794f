"""Scales of colours, and the numbers beside them."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from moedb.queries.figures.parts.axes import layer_colours
from moedb.queries.figures.parts.heatmap import (
    around_one,
    bar_ends,
    between_values,
    heatmap,
    up_from_zero,
)


def numbers(values: list[float]) -> list[str]:
    """What stands beside the colour bar of a heat map of ratios."""
    figure = Figure()
    matrix = np.array([values])
    heatmap(figure.subplots(), matrix, [0], range(len(values)), "lift", **around_one(matrix))
    return [text.get_text() for text in figure.axes[1].get_yticklabels()]


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ([0.9, 1.1], 2.0),
        ([0.25, 1.0], 4.0),
        ([1.0, 8.0], 8.0),
        ([0.0, 1.0], 2.0),
        ([1e9, 1.0], 64.0),
    ],
)
def test_ratios_end_as_far_below_one_as_above(values: list[float], limit: int) -> None:
    norm = around_one(np.array(values * 1000 + [np.nan]))["norm"]
    assert (norm.vmin, norm.vmax) == (pytest.approx(1 / limit), pytest.approx(limit))


def test_a_ratio_of_zero_has_the_colour_of_the_end_and_a_missing_one_is_grey() -> None:
    matrix = np.array([[0.0, 0.25, 1.0, 4.0, np.nan]])
    ax = heatmap(Figure().subplots(), matrix, [0], range(5), None, **around_one(matrix))
    image = ax.images[0]
    colours = image.cmap(image.norm(np.ma.masked_invalid(matrix)))[0]
    assert tuple(colours[0]) == tuple(colours[1]) == mpl.colormaps["PuOr"](0.0)
    assert tuple(colours[3]) == mpl.colormaps["PuOr"](1.0)
    assert colours[4][0] == colours[4][1] == pytest.approx(0.85)
    np.testing.assert_array_equal(image.get_array().filled(np.nan), matrix)
    assert bar_ends(image) == "min"


def test_numbers_beside_ratios_are_powers_of_two_with_one_among_them() -> None:
    assert numbers([0.5, 1.0, 2.0]) == ["1/2", "1", "2"]
    assert numbers([1.0, 8.0, 8.0]) == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    assert numbers([1.0, 32.0, 32.0]) == ["1/16", "1/4", "1", "4", "16"]


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.5, 2.0], "neither"), ([9.0, 1.0], "max"), ([0.0, 1.0], "min"), ([0.0, 9.0], "both")],
)
def test_arrows_say_that_values_lie_beyond(values: list[float], ends: str) -> None:
    matrix = np.array([values])
    ax = Figure().subplots()
    heatmap(ax, matrix, [0], [0, 1], None, **around_one(np.array([0.5, 2.0])))
    assert bar_ends(ax.images[0]) == ends


def test_scales_of_other_values() -> None:
    values = np.array([0.2, np.nan, 0.6])
    low = between_values(values)["norm"]
    assert (low.vmin, low.vmax) == (0.2, 0.6)
    assert between_values(np.array([3.0]))["norm"].vmax == 4.0
    up = up_from_zero(np.array([0.0, np.nan, 0.0]))["norm"]
    assert (up.vmin, up.vmax) == (0.0, 1.0)
    assert up_from_zero(np.linspace(0, 1, 1001))["norm"].vmax == pytest.approx(0.995)


def test_no_layer_is_so_light_that_its_line_is_lost() -> None:
    colours = layer_colours(range(24))
    for layer in range(24):
        red, green, blue, _ = colours.to_rgba(np.array(layer))
        assert 0.299 * red + 0.587 * green + 0.114 * blue < 0.8
