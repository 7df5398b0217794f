"""Figures of how a layer's experts are used: layers of different size, and what is refused."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.experts.concentration import plot_concentration
from moedb.queries.figures.experts.load_balance import (
    plot_load_balance,
    plot_load_balance_measure,
)
from tests.support.drawn.figure_frames import balances, concentrations


class TestConcentration:
    def test_layers_of_different_size_have_each_a_line_of_equal_use(self):
        small = concentrations(1, 8).assign(layer=3)
        ax = plot_concentration(pd.concat([small, concentrations(1, 16)]), Figure().subplots())
        *_, eight, sixteen = [list(zip(*line.get_data(), strict=True)) for line in ax.lines]
        assert eight == [(1, 1 / 8), (4, 0.5), (8, 1.0)]
        assert sixteen == [(1, 1 / 16), (4, 0.25), (8, 0.5), (16, 1.0)]

    def test_one_layer_is_named_without_a_colour_bar(self):
        figure = Figure()
        ax = plot_concentration(concentrations(1), figure.subplots())
        assert figure.axes == [ax]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 0", "equal use"]

    def test_refusals(self):
        frame = concentrations()
        with pytest.raises(UsageError, match="more than one row for a layer and a number"):
            plot_concentration(pd.concat([frame, frame]), Figure().subplots())
        with pytest.raises(UsageError, match="lacks n_top"):
            plot_concentration(frame.drop(columns="n_top"), Figure().subplots())


class TestLoadBalance:
    def test_refusals(self):
        frame = balances()
        with pytest.raises(UsageError, match="more than one row for a layer"):
            plot_load_balance(pd.concat([frame, frame]), Figure())
        with pytest.raises(UsageError, match="lacks gini"):
            plot_load_balance(frame.drop(columns="gini"), Figure())
        with pytest.raises(UsageError, match="no value 'ginni'") as caught:
            plot_load_balance_measure(frame, Figure().subplots(), value="ginni")
        assert "did you mean gini?" in caught.value.hint

    def test_effective_experts_stand_beside_all(self):
        frame = balances(3).assign(n_experts=[60, 60, 30])
        ax = plot_load_balance_measure(frame, Figure().subplots(), value="effective_experts")
        assert list(ax.lines[0].get_ydata()) == [60, 60, 30]
        assert list(ax.lines[1].get_ydata()) == frame["effective_experts"].tolist()
