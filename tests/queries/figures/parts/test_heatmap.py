"""Matrices from the rows of a result."""

import numpy as np
import pandas as pd
import pytest

from moedb.errors import UsageError
from moedb.queries.figures.parts.heatmap import layers_by_experts, matrix_of


def test_values_stand_where_their_keys_say_and_gaps_are_nan() -> None:
    frame = pd.DataFrame({"word": ["b", "a"], "layer": [7, 3], "share": [0.5, 0.25]})
    matrix = matrix_of(frame, ("word", ["a", "b"]), ("layer", [3, 5, 7]), "share")
    np.testing.assert_array_equal(matrix, [[0.25, np.nan, np.nan], [np.nan, np.nan, 0.5]])


def test_layers_are_those_there_and_experts_all_up_to_the_largest() -> None:
    frame = pd.DataFrame({"layer": [5, 2, 2], "expert": [0, 3, 0], "n": [7, 8, 9]})
    matrix, layers, experts = layers_by_experts(frame, "n")
    assert (layers, experts) == ([2, 5], range(4))
    np.testing.assert_array_equal(matrix, [[9, np.nan, np.nan, 8], [7, np.nan, np.nan, np.nan]])
    with pytest.raises(UsageError, match="more than one row for an expert of a layer"):
        layers_by_experts(pd.concat([frame, frame]), "n")
