"""DuckDB's SQL in Spark's words, without a Spark."""

import pytest

from moedb.errors import SqlError, SqlRefusedError
from moedb.queries.questions.catalog import catalog
from moedb.store.engine.spark.dialect import in_steps, parameters_of, spark_sql
from moedb.store.engine.spark.macros import Call
from moedb.store.engine.views import derived_view_names, derived_view_texts

RELATIONS = ["t", "u", *derived_view_names()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "select a from t order by a, b desc",
            "SELECT `a` FROM `t` ORDER BY `a` NULLS LAST, `b` DESC",
        ),
        ("from t select größe", "SELECT `größe` FROM `t`"),
        ("select 'it''s \\ :x', $x", r"SELECT 'it\'s \\ :x', :x"),
        ("select a // 2", "SELECT `a` DIV 2"),
        ("select count(*) / 2", "SELECT (CAST(COUNT(*) AS DOUBLE) / CAST(2 AS DOUBLE))"),
        ("select cast(count(*) as bigint)", "SELECT CAST(COUNT(*) AS BIGINT)"),
        (
            "select cast(a / 2 as int)",
            "SELECT CAST(RINT((CAST(`a` AS DOUBLE) / CAST(2 AS DOUBLE)))",
        ),
        ("select a like 'x'", "SELECT `a` LIKE 'x' ESCAPE '"),
        ("select a like 'x' escape '!'", "SELECT `a` LIKE 'x' ESCAPE '!'"),
        ("select cast(1 as hugeint)", "SELECT CAST(1 AS DECIMAL(38, 0))"),
        (
            "select sum(a order by b) filter (a > 0), avg(a order by b), stddev_samp(a order by a)",
            "SELECT SUM(`a`) FILTER(WHERE `a` > 0), AVG(`a`), STDDEV_SAMP(`a`)",
        ),
    ],
)
def test_how_it_is_said(given: str, expected: str) -> None:
    assert spark_sql(given, RELATIONS).startswith(expected)


def test_macros_are_put_in() -> None:
    sql = "select * from M(b := 1) join m($B) as n using (a) where b = $b"
    text = "select a, b from u where b = $b"
    calls = [Call("m", text, {"b": value}, {"b": value}, ("b",)) for value in ("it's", 1)]
    assert spark_sql(sql, RELATIONS, calls, {"b": "it's"}) == (
        "SELECT * FROM (SELECT `a`, `b` FROM `u` WHERE `b` = 1) AS `m` JOIN (SELECT `a`, `b` FROM "
        "`u` WHERE `b` = 'it\\'s') AS `n` USING (`a`) WHERE `b` = :b"
    )
    assert parameters_of(sql) == {"b", "B"}
    with pytest.raises(SqlRefusedError, match="constants, not LOWER"):
        spark_sql("from m(b := lower('X'))", RELATIONS, calls)
    with pytest.raises(SqlRefusedError, match="which is no table"):
        spark_sql("from m(b := 3)", RELATIONS, calls)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select * from other", "other, which is no table or view of the store"),
        ("select * from d.t", "d.t, which is no table"),
        ("select * from 't.parquet'", "which is no table"),
        ("select a from t union all select 1 from v", "reads v"),
        ("with v as (select 1) select * from v, w", "reads w"),
        ("select entropy(a) from t", "the function entropy is not known to mean the same"),
        ("select expert_output(a, 1, 2, 3) from t", "expert_output reads rows of an array"),
        ("select [1, 2]", "a list"),
        ("select {'a': 1}", "a struct"),
        ("select a[1] from t", "an element"),
        ("select a similar to 'x' from t", "similar to"),
        ("select * from t asof join u using (a)", "a join of the kind"),
        ("select list_transform([1], x -> x)", "is not known"),
        ("select columns('a.*') from t", "is not known"),
        ("pivot t on a using sum(b)", "is not known|one select"),
        ("show tables", "one select"),
        ("select 1; select 2", "one select"),
        ("insert into t values (1)", "one select"),
    ],
)
def test_what_is_refused(statement: str, said: str) -> None:
    with pytest.raises(SqlRefusedError, match=said):
        spark_sql(statement, RELATIONS)


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(SqlError, match="cannot be said in Spark's"):
        spark_sql("select from where ((", RELATIONS)


def test_every_query_and_view_can_be_said() -> None:
    for query in catalog().values():
        text = spark_sql(query.sql)
        assert "($" not in text
        assert {f":{p.name}" in text for p in query.parameters} == {True} or not query.parameters
    for name, text in derived_view_texts().items():
        body = text[text.index("create or replace view") :].partition(" as\n")[2]
        assert in_steps(body, name)[-1][0] == name


def test_parts_that_a_view_reads_twice_are_steps() -> None:
    text = derived_view_texts()["pair_chances"].partition(" pair_chances as\n")[2]
    steps = in_steps(text, "pair_chances")
    names = [name for name, _ in steps]
    parts = ("rates", "drawn", "affinities", "scale_5", "scales")
    assert names == [*(f"pair_chances_{part}" for part in parts), "pair_chances"]
    for number, (_, sql) in enumerate(steps):
        assert not any(f"`{later}`" in sql for later in names[number:])
