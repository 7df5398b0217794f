"""Matrices of experts two by two: what is known of a pair without a row, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.pairs.cross_layer import cross_layer_matrix, plot_cross_layer
from moedb.queries.figures.pairs.output_overlap import output_overlap_matrix, plot_output_overlap
from tests.support.drawn.figure_frames import cross_layers, output_overlaps

# expert 1 was never chosen at layer 0, and 0 never at layer 1
ROWS = [(0, 1, 0, 1, 2, 5, 0.4, 0.8), (0, 1, 0, 2, 3, 5, 0.6, 1.5), (0, 1, 2, 2, 1, 1, 1.0, 2.5)]
NAMES = "layer next_layer expert next_expert n_both n_expert p_next_given lift"
NAN = np.nan


@pytest.fixture
def frame():
    return pd.DataFrame(ROWS, columns=NAMES.split())


class TestCrossLayer:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("n_both", [[0, 2, 3], [NAN, NAN, NAN], [0, 0, 1]]),
            ("p_next_given", [[0, 0.4, 0.6], [NAN, NAN, NAN], [0, 0, 1]]),
            ("lift", [[NAN, 0.8, 1.5], [NAN, NAN, NAN], [NAN, 0, 2.5]]),
        ],
    )
    def test_no_row_is_zero_unless_an_expert_was_never_chosen(self, frame, value, expected):
        matrix, rows, columns = cross_layer_matrix(frame, 0, value=value)
        np.testing.assert_array_equal(matrix, expected)
        assert (rows, columns) == ([0, 1, 2], [0, 1, 2])

    def test_the_most_used_of_either_layer(self, frame):
        matrix, rows, columns = cross_layer_matrix(frame, 0, value="n_both", top=2)
        assert (rows, columns) == ([0, 2], [2, 1])
        np.testing.assert_array_equal(matrix, [[3, 2], [1, 0]])

    def test_refusals(self, frame):
        with pytest.raises(UsageError, match="no layer 1") as caught:
            cross_layer_matrix(frame, 1)
        assert caught.value.hint == "layers: 0"
        with pytest.raises(UsageError, match="2 experts or more"):
            cross_layer_matrix(frame, 0, top=1)
        with pytest.raises(UsageError, match="more than one row"):
            cross_layer_matrix(pd.concat([frame, frame]), 0)
        with pytest.raises(UsageError, match="no value 'p_next'"):
            plot_cross_layer(frame, Figure(), value="p_next")
        with pytest.raises(UsageError, match="49 pairs of layers are too many"):
            plot_cross_layer(cross_layers(49, 3), Figure())


class TestOutputOverlap:
    def test_symmetric_and_unknown_without_a_row(self):
        rows = [(4, 0, 2, 9, 0.5, 0.7), (4, 1, 2, 9, -0.25, None)]
        columns = "layer expert_a expert_b n_tokens cosine cka"
        frame = pd.DataFrame(rows, columns=columns.split())
        matrix = output_overlap_matrix(frame, 4)
        np.testing.assert_array_equal(
            matrix, [[NAN, NAN, 0.5], [NAN, NAN, -0.25], [0.5, -0.25, NAN]]
        )
        assert np.isfinite(output_overlap_matrix(frame, 4, value="cka")).sum() == 2

    def test_refusals(self):
        frame = output_overlaps(2, 5)
        with pytest.raises(UsageError, match="no layer 7"):
            output_overlap_matrix(frame, 7)
        with pytest.raises(UsageError, match="more than one row"):
            output_overlap_matrix(pd.concat([frame, frame]), 0)
        with pytest.raises(UsageError, match="no pair of experts has a cka"):
            plot_output_overlap(frame.assign(cka=np.nan), Figure(), value="cka")
        with pytest.raises(UsageError, match="49 layers are too many"):
            plot_output_overlap(output_overlaps(49, 3), Figure())
        with pytest.raises(UsageError, match="no value 'cos'"):
            plot_output_overlap(frame, Figure(), value="cos")
