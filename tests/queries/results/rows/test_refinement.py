"""Conditions, orders and columns of a result, typed by a stranger."""

import pytest

from moedb.errors import SqlRefusedError, UsageError
from moedb.queries.analyses.analysis import AnalysisColumn
from moedb.queries.analyses.registry import relation_of
from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows
from moedb.queries.results.rows.refinement import Refinement, column_names, picked, refined
from tests.support.stores.result_samples import a_provenance, a_result

SQL = "select i as layer, i % 3 as \"a, b\", [i] as list, 'x' as t from range(10) t(i)"


def layers(where: str | None = None, order_by: str | None = None) -> list[int]:
    found = refined(a_result(SQL), Refinement(where, order_by))
    return [row[0] for row in found.fetchall()]


def test_conditions_are_sql() -> None:
    assert layers("layer between 3 and 5 or LAYER = 9") == [3, 4, 5, 9]
    assert layers('"a, b" = 1 -- and nothing else') == [1, 4, 7]
    assert layers("len(list_filter(list, lambda n: n > 7)) > 0") == [8, 9]
    assert layers("t = 'x' and not layer > 0") == [0]


@pytest.mark.parametrize(
    "where",
    [
        "1=1; drop table x",
        "1=1; select 2",
        "layer = 1 from other",
        "layer in (select 1)",
        "exists (from range(3))",
        "layer = 1 union select 1",
        "layer = 1 limit 1",
        "layer = 1 order by layer",
        "distinct layer",
        "layer, t",
        "layer as other",
        "$layer = 1",
        "(select 1 from read_text('/etc/passwd')) is null",
    ],
)
def test_what_is_no_condition_is_refused(where: str) -> None:
    with pytest.raises(SqlRefusedError, match="is not one condition"):
        layers(where)


@pytest.mark.parametrize(
    "where",
    ["", "true) or (true", "true) select (1", "layer /*", "'", "layer = 1;", "count(*) > 1",
     "row_number() over () > 1", "read_text('/etc/passwd') is not null", "nothing(layer)", "*"],
)  # fmt: skip
def test_what_duckdb_cannot_take_is_refused(where: str) -> None:
    with pytest.raises(UsageError):
        layers(where)


def test_unknown_columns_are_named_with_the_nearest() -> None:
    for where, order_by in (("laier = 1", None), (None, "laier desc")):
        with pytest.raises(UsageError, match="no column 'laier'") as caught:
            layers(where, order_by)
        assert "did you mean layer?" in str(caught.value)
    with pytest.raises(UsageError, match="no column 'laier'"):
        picked(a_result(SQL), ["laier"])


def test_orders() -> None:
    by_rest = sorted(range(10), key=lambda i: (-(i % 3), i))
    assert layers(None, '"a, b" desc') == by_rest
    assert layers(None, '"a, b" DESC NULLS FIRST, layer') == by_rest
    assert layers("layer < 5", "t,layer desc") == [4, 3, 2, 1, 0]
    for wrong in ("", "layer,", ",layer", '"layer', "layer,,t"):
        with pytest.raises(UsageError, match="no list of columns"):
            layers(None, wrong)
    with pytest.raises(UsageError, match="no column 'random"):
        layers(None, "random()")


def test_names_of_columns() -> None:
    assert column_names(' layer , "a, b","say ""hi""" ') == ("layer", "a, b", 'say "hi"')
    result = picked(a_result(SQL), column_names('t,"a, b"'))
    assert result.columns == ["t", "a, b"]
    assert result.fetchall()[1] == ("x", 1)


def test_two_columns_of_one_name() -> None:
    twice = a_result("select i as a, -i as a, i as b from range(4) t(i)")
    found = refined(twice, Refinement("b > 1", "b desc"))
    assert found.columns == ["a", "a", "b"]
    assert found.fetchall() == [(3, -3, 3), (2, -2, 2)]
    for where, order_by in (("a = 1", None), (None, "a")):
        with pytest.raises(UsageError, match="2 columns are named 'a'"):
            refined(twice, Refinement(where, order_by))


def test_an_empty_result_says_which_condition_left_nothing() -> None:
    none = refined(a_result(SQL), Refinement("layer > 20"))
    assert none.fetchall() == []
    assert "the condition layer > 20 does not hold for any of the 10 rows" in none.why_empty()
    already = refined(a_result(f"{SQL} where i > 20"), Refinement("layer > 3"))
    assert already.why_empty() == "the SQL selects nothing"


def test_rows_of_an_analysis_reach_no_file_either() -> None:
    connection, relation = relation_of(
        [AnalysisColumn("layer", "the layer", "INTEGER")], [(1,), (2,)]
    )
    computed = Result(relation, a_provenance, connection)
    given = result_of_rows({"layer": "INTEGER"}, [(1,), (2,)])
    for result in (computed, given):
        assert refined(result, Refinement("layer = 2")).fetchall() == [(2,)]
        with pytest.raises(Exception, match="disabled"):
            result.connection.execute("select * from read_text('/etc/passwd')")
