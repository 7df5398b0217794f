"""What figures refuse of the rows that they are given."""

import pandas as pd
import pytest

from moedb.errors import UsageError
from moedb.queries.figures.parts.frames import check_value, require_columns, require_one_row

FRAME = pd.DataFrame({"layer": [0, 0, 1], "expert": [1, 2, 1], "share": [0.5, 0.25, 1.0]})


def test_a_value_that_no_figure_shows_is_refused_with_the_nearest() -> None:
    check_value("share", {"share": "share of tokens"})
    with pytest.raises(UsageError, match="no value 'shar'") as raised:
        check_value("shar", {"share": "share of tokens", "rate": "rate"})
    assert "share" in str(raised.value.hint)


def test_a_missing_column_is_named_with_those_there() -> None:
    require_columns(FRAME, ("layer", "expert"))
    with pytest.raises(UsageError, match="the result lacks rate, weight") as raised:
        require_columns(FRAME, ("layer", "rate", "weight"))
    assert raised.value.hint == "columns: layer, expert, share"


def test_two_rows_for_a_cell_are_refused() -> None:
    require_one_row(FRAME, ("layer", "expert"), "an expert of a layer")
    with pytest.raises(UsageError, match="more than one row for a layer") as raised:
        require_one_row(FRAME, ("layer",), "a layer")
    assert raised.value.hint == "narrow it to one run"
