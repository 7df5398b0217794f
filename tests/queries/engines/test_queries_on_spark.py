"""Every named query on Spark, cell by cell what DuckDB answers."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pytest

from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog, named_query
from moedb.schemas.tables import TABLES
from moedb.store.engine.spark.dialect import spark_sql
from moedb.store.engine.views import derived_view_names, view_definitions
from tests.support.servers.spark import assert_same_rows, frame_of
from tests.support.stores import synthetic, synthetic_trials

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


Given = dict[str, object]

OF_RUNS: dict[str, list[Given]] = {
    "expert-frequency": [{}, {"run": synthetic.OLDER, "split": "all"}],
    "concentration": [{"split": "held-out"}],
    "routing-by-class": [{"key": "template"}, {"key": "role", "split": "all"}, {"key": "model"}],
    "expert-specialization": [{"key": "role", "min_decisions": 0}, {"key": "no such key"}],
    "expert-similarity": [{}, {"layer": 2}],
    "pair-specialization": [{"key": "role", "min_decisions": 2}, {"key": "no such key"}],
    "routing-by-example": [
        {"position": 3, "scope": "example", "key": "template", "layer": 2},
        {"key": "kind"},
    ],
    "active-experts": [{"position": 3}, {"scope": "example", "split": "all"}],
    "co-activation": [{}, {"run": synthetic.OLDER, "split": "all", "layer": 2}],
    "co-activation-adjacent": [{"layer": 2}],
    "overlap": [
        {"key": "kind", "value_a": "'s", "value_b": "all", "m": 100},
        {"run_b": synthetic.OLDER},
    ],
    "load-balance": [{}],
    "router-confidence": [{"key": "kind"}],
    "top-tokens": [{"layer": 5, "by": "lift", "min_count": 1, "n": 100}],
    "cross-layer": [{}, {"layer": 3, "pairs": "rank-aligned"}],
    "saturation": [{"run_b": synthetic.NEWER}],
    "vocabulary-specialization": [{"of": "next", "min_count": 3}],
    "ioi-logit-diff": [{"key": "kind", "condition": 1}],
    "labelled-experts": [{"against": "document"}],
    "polysemanticity": [{"min_accuracy": 0.5}],
    "probe-best": [{}],
    "probe-curves": [{}],
}
OF_TRIALS: dict[str, list[Given]] = {
    "router-ablation": [{"level": "trial"}],
    "class-correlation": [{"key": "size"}],
    "class-covariance": [{"variant": "base", "experts": 2}],
    "class-consistency": [{"layer": 4}],
    "expert-accuracy": [{}],
    "load-balance-by-trial": [{"gate": "unweighted"}],
}
# what stands in labels: quotes, escapes, marks of parameters, numbers as other engines read them
WORDS = (
    "it's",
    'a "b"',
    "back\\slash\\n",
    "two\nlines",
    "$run :run ?",
    "é 猫",
    "",
    "3",
    "3d",
    "10",
)


def with_added_rows(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same with rows in the tables that nothing has filled, drawn at random."""
    rng = np.random.default_rng(11)
    filled = dict(tables)
    for name in ("probe_scores", "expert_labels", "expert_label_scores", "expert_cosines"):
        (table,) = (each for each in TABLES if each.name == name)
        rows = pd.DataFrame({c.name: _drawn(rng, c.name, c.type) for c in table.columns})
        keys = rows.drop_duplicates(["run_id", *table.sort_by])
        filled[name] = keys.reset_index(drop=True)
    labels = filled["example_labels"]
    ids = labels["example_id"].unique()
    more = {"run_id": synthetic.NEWER, "example_id": ids, "key": "role"}
    values = [WORDS[i % len(WORDS)] for i in range(len(ids))]
    new = pd.DataFrame(more).assign(value=values)
    of_run = labels.loc[labels["run_id"] == synthetic.NEWER, "example_id"]
    new = new[new["example_id"].isin(of_run)]
    filled["example_labels"] = pd.concat([labels, new], ignore_index=True)
    return filled


def _drawn(rng: np.random.Generator, name: str, kind: str, n: int = 300) -> list[object]:
    chosen = {
        "run_id": [synthetic.NEWER],
        "protocol": ["documents", "herbst2026"],
        "permutation": [0, 1],
        "kind": ["detection", "fuzzing"],
        "against": ["all", "document"],
        "layer": [2, 5],
        "k": [1, 2],
        "n_test": [0, 7, 20],
    }.get(name)
    if chosen is not None:
        return list(rng.choice(np.array(chosen, dtype=object), n))
    if kind == "string":
        return list(rng.choice(np.array(WORDS, dtype=object), n))
    if kind.startswith("int"):
        return list(rng.integers(0, 6, n).astype(object))
    # equal ones, to be put in order by the columns after them, and none
    return [None if x < 0.1 else round(x, 1) for x in rng.random(n)]


class Twins:
    """The same tables in DuckDB and in Spark."""

    def __init__(self, spark: "SparkSession", tables: dict[str, pd.DataFrame]) -> None:
        from moedb.store.engine.spark.views import SparkViews

        self.connection: duckdb.DuckDBPyConnection = synthetic.connect(tables, macros=False)
        self.session = spark.newSession()
        self.session.conf.set("spark.sql.ansi.enabled", "true")
        frames = partial(frame_of, self.session, self.connection)
        self.views: SparkViews = SparkViews(self.session, view_definitions(2), frames)

    def compare(self, sql: str, given: Given) -> int:
        """Hold Spark's answer against DuckDB's; return how many rows there are."""
        expected = self.connection.execute(sql, given or None)
        rows = expected.fetchall()
        text = spark_sql(sql, [*(table.name for table in TABLES), *derived_view_names()])
        self.views.define(text)
        found = self.session.sql(text, args=given).toArrow()
        columns = [column.to_pylist() for column in found.columns]
        assert_same_rows(list(zip(*columns, strict=True)), rows)
        return len(rows)


@pytest.fixture(scope="module")
def runs(spark: "SparkSession") -> Iterator[Twins]:
    twins = Twins(spark, with_added_rows(synthetic.make_tables(0)))
    yield twins
    twins.views.drop()


@pytest.fixture(scope="module")
def trials(spark: "SparkSession") -> Iterator[Twins]:
    twins = Twins(spark, synthetic_trials.make_tables(0))
    yield twins
    twins.views.drop()


def test_every_query_is_covered() -> None:
    assert {*OF_RUNS, *OF_TRIALS} == set(catalog())


@pytest.mark.parametrize(("name", "given"), [(n, g) for n, all_ in OF_RUNS.items() for g in all_])
def test_a_query_over_runs(name: str, given: Given, runs: Twins) -> None:
    query = named_query(name)
    n_rows = runs.compare(query.sql, dict(bind(query, {"run": synthetic.NEWER, **given})))
    assert (n_rows == 0) == (given.get("key") == "no such key")


@pytest.mark.parametrize(("name", "given"), [(n, g) for n, all_ in OF_TRIALS.items() for g in all_])
def test_a_query_over_trials(name: str, given: Given, trials: Twins) -> None:
    query = named_query(name)
    assert trials.compare(query.sql, dict(bind(query, given)))


@pytest.mark.parametrize("view", ["token_context", "labels", "expert_mass", "latest_run"])
def test_a_view_that_few_queries_read(view: str, runs: Twins) -> None:
    assert runs.compare(f"select * from {view} order by all", {})


EDGES = [
    "1 / 0, -1 / 0, 0 / 0, 0.0 / 0.0, null / 0, 1 / 3.0, 7 / 2, 6 / 3 / 2 / 1.0",
    "cast(2.5 as integer), cast(cast(2.5 as double) as integer), cast('2.6' as bigint)",
    "cast(cast(-3.5 as double) as bigint), try_cast('x' as int), cast(1::hugeint as bigint)",
    "try_cast('3d' as double), try_cast('7f' as double), try_cast(' 12 ' as double)",
    "try_cast('1e3' as double), try_cast('inf' as double), try_cast('nan' as double)",
    "ln(0), ln(2), log(100), log2(8), log10(1000), sqrt(2), round(2.5), round(-2.5), abs(-1)",
    "-5 // 2, 5 // 2, -5 % 3, 5 % -3, 2 ** 10, 9223372036854775807",
    "'a\\b' like 'a\\b', 'a_b' like 'a$_b' escape '$', 'A' ilike 'a', 'x' like '_'",
    "'it''s', 'two\nlines', '\\n', 'a:b $c', 'é 猫' || '!', concat('a', null, 'b'), ''",
    "length('é猫'), upper('é'), substring('hello', 2, 3), left('猫a', 1), trim('  a ')",
    "replace('a.b', '.', '\\'), strpos('hello', 'l'), starts_with('ab', 'a'), reverse('ab')",
    "regexp_matches('a1', '^[a-z]\\d$'), split_part('a.b', '.', 2), contains('a%b', '%')",
    "greatest(1, null, 3), least(2, 1), coalesce(null, 'x'), nullif(1, 1), isnan(0 / 0)",
    "1 in (2, null), not null, true and null, null = null",
    "null is not distinct from null, 3 between 1 and 4, exists (select 1), (select max(1))",
]


@pytest.mark.parametrize("cells", EDGES)
def test_what_engines_compute_otherwise(cells: str, runs: Twins) -> None:
    names = [f"c{number}" for number in range(20)]
    row = runs.connection.sql(f"select {cells}")
    sql = f"select * from (select {cells}) as t ({', '.join(names[: len(row.columns)])})"
    assert runs.compare(sql, {}) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "select expert, count(*) filter (where rank = 0) as n, sum(weight) / count(*) as w, "
        "avg(weight), min(weight), stddev(weight), median(weight), count(distinct token_idx) "
        "from routing group by all order by n desc, expert limit 7 offset 1",
        "select layer, expert, row_number() over (partition by layer order by expert desc) as r, "
        "lag(expert) over (partition by layer order by expert) as before, "
        "sum(expert) over (partition by layer order by expert rows between 1 preceding and "
        "current row) as running from experts where run_id = $run qualify r <= 3 "
        "order by layer, r",
        "from moe_layers select * exclude (module, scoring) where layer >= $low order by all",
        "with t as (select x from (values (1.0), (null), (2.5)) as v (x)), u as (from t) "
        "select x, x * 2, x > 2 from u union all select 3, null, true order by x desc nulls first",
        "select value, string_agg(cast(example_id as varchar), ',' order by example_id) "
        "from example_labels where value not like '%\\\\%' group by value order by value",
    ],
)
def test_statements(sql: str, runs: Twins) -> None:
    given = {"run": synthetic.NEWER, "low": 3}
    assert runs.compare(sql, {k: v for k, v in given.items() if f"${k}" in sql})
