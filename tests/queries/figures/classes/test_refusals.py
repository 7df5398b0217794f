"""What figures about classes cannot draw."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.classes.confidence import plot_router_confidence
from moedb.queries.figures.classes.information import plot_label_information
from moedb.queries.figures.classes.matrices import plot_routing_by_class
from moedb.queries.figures.classes.overlap import plot_overlap
from tests.support.drawn.figure_frames import confidences, informations, overlaps


@pytest.fixture
def ax():
    return Figure().subplots()


class TestOverlap:
    def test_refusals(self, ax):
        frame = overlaps()
        with pytest.raises(UsageError, match="more than one row for a layer"):
            plot_overlap(pd.concat([frame, frame]), ax)
        with pytest.raises(UsageError, match="no value 'jacard'") as caught:
            plot_overlap(frame, ax, value="jacard")
        assert "did you mean jaccard?" in caught.value.hint
        with pytest.raises(UsageError, match="lacks m"):
            plot_overlap(frame.drop(columns="m"), ax)
        with pytest.raises(UsageError, match="no layer has a jaccard to draw"):
            plot_overlap(frame.assign(jaccard=np.nan), ax, value="jaccard")

    def test_a_layer_without_a_value_has_no_mark(self, ax):
        frame = overlaps(4)
        frame.loc[2, "jaccard"] = np.nan
        plot_overlap(frame, ax, value="jaccard")
        assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, False, True, False]

    def test_sizes_that_differ_are_named(self, ax):
        frame = overlaps(3).assign(m=[2, 8, 4], n_tokens_b=[1, 1000, 10])
        plot_overlap(frame, ax, value="jaccard")
        assert ax.lines[0].get_label() == "Jaccard index of the 2 to 8 most used"
        assert ax.get_xlabel() == "layer (12,345 tokens in group A, 1 to 1,000 in B)"


class TestConfidence:
    def test_too_many_classes(self, ax):
        with pytest.raises(UsageError, match="61 classes are too many") as caught:
            plot_router_confidence(confidences(61), ax)
        assert "-p key KEY" in caught.value.hint

    def test_eight_classes_are_lines_and_nine_are_rows(self):
        eight = plot_router_confidence(confidences(8), Figure().subplots())
        nine = plot_router_confidence(confidences(9), Figure().subplots())
        assert (len(eight.containers), len(eight.images)) == (8, 0)
        assert (len(nine.containers), nine.images[0].get_array().shape) == (0, (9, 6))

    def test_bars_are_of_the_entropy_alone(self, ax):
        plot_router_confidence(confidences(3), ax, value="mean_margin")
        assert ax.containers == []
        assert ax.get_xlabel() == "layer"

    def test_one_layer_has_bars_and_no_band(self, ax):
        plot_router_confidence(confidences(1, 1), ax)
        assert len(ax.containers) == 1
        assert ax.get_xlabel() == "layer (bars: one sd over tokens)"

    def test_refusals(self, ax):
        frame = confidences()
        with pytest.raises(UsageError, match="more than one row for a layer and a class"):
            plot_router_confidence(pd.concat([frame, frame]), ax)
        with pytest.raises(UsageError, match="no value 'entropy'"):
            plot_router_confidence(frame, ax, value="entropy")
        with pytest.raises(UsageError, match="no layer has a mean_margin"):
            plot_router_confidence(frame.assign(mean_margin=np.nan), ax, value="mean_margin")


class TestInformation:
    def test_hollow_marks_where_it_may_be_chance(self, ax):
        plot_label_information(informations(4), ax)
        marks = {line.get_label(): line for line in ax.lines}
        assert list(marks["p at most 0.05"].get_xdata()) == [2, 3]
        assert list(marks["p above 0.05"].get_xdata()) == [0, 1]
        assert marks["p above 0.05"].get_markerfacecolor() == "white"

    def test_without_permutations_there_is_no_band(self, ax):
        frame = informations(3).assign(null_mean=np.nan, null_highest=np.nan, p_value=np.nan)
        plot_label_information(frame, ax)
        assert len(ax.collections) == 0
        assert ax.get_xlabel() == "layer"
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["labels as they are"]

    def test_refusals(self, ax):
        frame = informations()
        with pytest.raises(UsageError, match="the label has a single value"):
            plot_label_information(frame.assign(normalized=np.nan), ax, value="normalized")
        with pytest.raises(UsageError, match="more than one row for a layer"):
            plot_label_information(pd.concat([frame, frame]), ax)


class TestLift:
    def test_too_many_classes_and_none(self, ax):
        rows = [(0, f"c{n}", 0, 1.0) for n in range(201)]
        frame = pd.DataFrame(rows, columns=["layer", "value", "expert", "lift"])
        with pytest.raises(UsageError, match="201 classes are too many for one figure: 200"):
            plot_routing_by_class(frame, ax, value="lift")
        with pytest.raises(UsageError, match="layer 0 has no lift to draw"):
            plot_routing_by_class(frame.head(3).assign(lift=np.nan), ax, value="lift")
