import pytest

from moedb.errors import UsageError
from moedb.queries.results.sheets import TableOptions, arrange
from tests.support.stores.result_samples import (
    a_result,
    render,
    the_pivot_sample,
    the_sample,
)


class TestArrange:
    def test_pivot_orders_columns_by_number_and_rows_as_they_come(self):
        result = a_result(
            "select * from (values ('b', 10, 1), ('a', 9, 2), ('b', 9, 3)) t(r, c, v)"
        )
        sheet = arrange(result, TableOptions(pivot=("r", "c", "v")))
        assert [column.name for column in sheet.columns] == ["r", "9", "10"]
        assert sheet.rows == (("b", 3, 1), ("a", 2, None))

    def test_pivot_keeps_null_apart_from_the_word(self):
        result = a_result("select * from (values (1, 'null', 1), (1, null, 2)) t(r, c, v)")
        sheet = arrange(result, TableOptions(pivot=("r", "c", "v")))
        assert sheet.rows == ((1, 1, 2),)

    def test_columns_of_a_pivot(self):
        options = TableOptions(pivot=("layer", "expert", "rate"), columns=("2", "layer"))
        sheet = arrange(the_pivot_sample(), options)
        assert sheet.rows == ((1.0, 0), (0.0, 1))

    def test_duplicate_cells(self):
        with pytest.raises(UsageError, match="more than one row has layer 0 and ok true"):
            arrange(the_sample(), TableOptions(pivot=("layer", "ok", "rate")))

    @pytest.mark.parametrize(
        "options",
        [
            TableOptions(columns=("layr",)),
            TableOptions(pivot=("layr", "expert", "rate")),
            TableOptions(pivot=("expert", "layr", "rate")),
            TableOptions(pivot=("expert", "rate", "layr")),
        ],
    )
    def test_unknown_column(self, options):
        with pytest.raises(UsageError, match="no column 'layr'") as caught:
            arrange(the_sample(), options)
        assert "did you mean layer?" in caught.value.hint

    @pytest.mark.parametrize(
        ("options", "nearest"),
        [
            (TableOptions(header_names={"layr": "Layer"}), "layer"),
            (TableOptions(header_names={"n": "N"}, columns=("layer", "expert")), "layer"),
            (TableOptions(header_names={"rate": "R"}, pivot=("layer", "n", "rate")), "layer"),
        ],
    )
    def test_a_new_name_is_of_a_column_that_is_shown(self, options, nearest):
        with pytest.raises(UsageError, match="rename: the table has no column") as caught:
            arrange(the_sample().limit(2), options)
        assert nearest in caught.value.hint

    def test_limit(self):
        assert not arrange(the_sample(), TableOptions(limit=11)).truncated
        cut = arrange(the_sample(), TableOptions(limit=2))
        assert (cut.truncated, len(cut.rows)) == (True, 2)
        assert arrange(the_sample(), TableOptions(limit=0)).truncated

    @pytest.mark.parametrize(
        "wrong",
        [
            {"precision": -1},
            {"bold": "max"},
            {"limit": -1},
            {"label": "a b%"},
            {"pivot": ("a", "b")},
            {"pivot": ("a", "a", "b")},
            {"columns": ()},
            {"environment": "figure"},
            {"font_size": "9pt"},
        ],
    )
    def test_options_are_checked(self, wrong):
        with pytest.raises(UsageError):
            TableOptions(**wrong)

    def test_bold_needs_floats(self):
        with pytest.raises(UsageError, match="no column holds floats"):
            render(a_result("select 1 as layer"), "latex", TableOptions(bold="row-max"))
