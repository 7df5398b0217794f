"""A store that Spark reads: what it answers is what DuckDB does, and what it refuses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import moedb
from moedb.errors import (
    SqlError,
    SqlRefusedError,
    StoreDamagedError,
    StoreError,
    UsageError,
)
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.database import Database
from moedb.queries.results.result import Result
from moedb.schemas.additions import Addition
from moedb.store.writing.complete.additions import add
from moedb.store.writing.complete.compaction import compact_run
from tests.support.servers.spark import assert_same_rows
from tests.support.shared import made_once
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, write_texts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.models.cifar_store import CifarStore

pytestmark = pytest.mark.model

LABELS = {'it\'s "so"': "a\\b\n$c :d é", "kind": "猫", "n": "007"}
ODD_KEY = "back\\slash 'n' \"q\"\n:x é"
TOKEN_LABELS = {
    "token_idx": [0, 1, 2, 3, 0, 4],
    "key": ["kind", "kind", ODD_KEY, ODD_KEY, "pos", "pos"],
    # token 0 has this label by itself and as one of its example's
    "value": ["猫", "dog", "x", "y\\", "noun", "verb"],
}
TEXTS = ("One more, two more.", "Ünïcode 'quoted' $run :x", "a_b 100 % sure")


def make(folder: Path, random_model: Path) -> None:
    """Runs of 60, of 12 and of 4 experts, and interventions on the first, which is compacted."""
    store = folder / "store"
    write_texts(store, TEXTS, example_labels=LABELS)
    add(store, RUN_ID, Addition("odd", "made"), {"token_labels": [pa.table(TOKEN_LABELS)]})
    run = moedb.capture_ioi(store, n=6, name="small")
    moedb.capture_ioi(store, model=str(random_model), n=5, name="random")
    moedb.intervene(
        run, store, kind="ablate-experts", layers="2", most_frequent=3, each=True, lens=True
    )
    compact_run(store, run)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    found = made_once(tmp_path_factory, "spark", lambda folder: make(folder, random_model))
    return found / "store"


@pytest.fixture(scope="module")
def plain(spark: "SparkSession", store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


@pytest.fixture(scope="module")
def db(spark: "SparkSession", store: Path) -> Iterator[Database]:
    with moedb.open(store, spark=moedb.SparkSettings()) as database:
        yield database


def assert_same(found: Result, expected: Result) -> None:
    assert found.columns == expected.columns
    assert [str(t) for t in found.types] == [str(t) for t in expected.types]
    rows = expected.fetchall()
    assert rows
    assert_same_rows(found.fetchall(), rows)
    assert found.provenance.runs == expected.provenance.runs
    assert found.provenance.engine.startswith("Spark (")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("expert-frequency", {"run": "small"}),
        ("routing-by-class", {"run": "small", "key": "role"}),
        ("co-activation", {"run": "random", "split": "all"}),
        ("top-tokens", {"run": RUN_ID, "min_count": 1}),
        ("routing-by-class", {"run": "small", "key": "template"}),
        *(("routing-by-class", {"run": RUN_ID, "key": key}) for key in [*LABELS, ODD_KEY, "pos"]),
        ("expert-specialization", {"run": RUN_ID, "key": "kind", "min_decisions": 1}),
        ("overlap", {"run": RUN_ID, "key": "kind", "value_a": "猫", "value_b": "dog"}),
        ("label-information", {"run": "small", "key": "role", "layer": 2, "permutations": 5}),
        ("logit-lens", {"run": "small"}),
        ("intervention-effect", {"run": "small", "samples": 20}),
        ("lens-effect", {"run": "small"}),
        ("expert-effect", {"run": "small", "samples": 20}),
    ],
)
def test_a_question(name: str, given: dict[str, object], db: Database, plain: Database) -> None:
    known = {parameter.name for parameter in ANALYSES[name].parameters} if name in ANALYSES else {}
    asked = {k: v for k, v in given.items() if k not in ("samples", "permutations") or k in known}
    assert_same(db.query(name, **asked), plain.query(name, **asked))


def test_an_analysis_over_trials(spark: "SparkSession", cifar_store: "CifarStore") -> None:
    name = "routing-by-class-over-trials"
    with (
        moedb.open(cifar_store.folder) as plain,
        moedb.open(cifar_store.folder, spark=moedb.SparkSettings()) as db,
    ):
        assert_same(db.query(name), plain.query(name))


def test_a_store_of_the_first_format(spark: "SparkSession", tmp_path: Path) -> None:
    store = unpack("format-1", tmp_path)
    with moedb.open(store) as plain, moedb.open(store, spark=moedb.SparkSettings()) as db:
        assert_same(db.query("expert-frequency"), plain.query("expert-frequency"))
        rows = "select * from router_mass order by all limit 5"
        assert_same(db.sql(rows), plain.sql(rows))
        for view in ("class_sizes", "class_routing"):
            keys = "select distinct key from labels order by key"
            for (key,) in plain.sql(keys).fetchall():
                rows = f"select * from {view} where key = $key order by all"
                assert_same(db.sql(rows, {"key": key}), plain.sql(rows, {"key": key}))


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        ("from routing_by_class(key := 'role', run := 'small') where lift > 2", {}),
        (
            "with f as (from expert_frequency(run := 'small')), g as (from expert_frequency(run := "
            "'random', split := 'all') as x) select f.layer, f.expert, f.share, g.share as other, "
            "f.layer from f join g using (layer, expert) order by f.layer, f.expert",
            {},
        ),
        (
            'select key, value as "the value", count(*) as größe, cast($low as double) / 0, null '
            "from labels where key = $key or value = $value group by all order by all;",
            {"key": 'it\'s "so"', "value": "猫", "low": 2},
        ),
        (
            "select l.c, (select count(*) from load_balance('small')) as n, r.d from (select "
            "count(*) as c from load_balance(run := $random, split := 'all')) as l, (select "
            "sum(layer) as d from load_balance(run := 'small')) as r, load_balance('small') as b",
            {"random": "random"},
        ),
        ("select run_id, key, value from run_labels union all select $a, $b, $c", {}),
        ("select token, token as token, 'a:b $c' from tokens order by all limit 3", {}),
        ("select run_id, job, status, created_at, n_tokens, config from runs order by all", {}),
        ("select 9223372036854775807 as big, -9223372036854775807, 1e300 * 10", {}),
        ("select $n as n, $N + 1", {"n": 3}),
    ],
)
def test_sql(statement: str, given: dict[str, object], db: Database, plain: Database) -> None:
    values = dict.fromkeys("abc", "x\\'\n") if "$a" in statement else given
    assert_same(db.sql(statement, values), plain.sql(statement, values))


def test_sql_over_one_run(db: Database, plain: Database) -> None:
    statement = "select $run, count(*), max(expert) from routing"
    assert_same(db.sql(statement, run="random"), plain.sql(statement, run="random"))


def test_answers_without_rows_say_why(db: Database) -> None:
    result = db.sql("from routing_by_class(key := 'role', run := 'small') where lift > 1e9")
    assert result.fetchall() == []
    assert result.why_empty() == "the SQL selects nothing"


@pytest.mark.parametrize(
    ("statement", "error", "said"),
    [
        ("select * from '/etc/passwd'", SqlError, "/etc/passwd does not exist"),
        ("select * from parquet.`/etc/passwd`", SqlError, ""),
        ("select * from spark_catalog.default.t", SqlError, "spark_catalog"),
        ("select * from duckdb_tables()", SqlRefusedError, "which is no table or view"),
        ("describe routing", SqlRefusedError, "one select"),
        ("summarize routing", SqlRefusedError, "one select"),
        ("select reflect('java.lang.System', 'exit', 1)", SqlError, "reflect"),
        ("select list(expert) from routing", SqlRefusedError, "list|array_agg"),
        ("select hash(token) from tokens", SqlRefusedError, "function hash"),
        ("select token ~ 'a' from tokens", SqlRefusedError, "regexp_matches"),
        ("select distinct on (layer) * from routing", SqlRefusedError, "distinct on"),
        ("select * from routing qualify row_number() over () = 1", SqlRefusedError, "qualify"),
        ("select * from routing using sample 3", SqlRefusedError, "sample"),
        ("from routing_by_class(key := lower('ROLE'))", SqlRefusedError, "are constants"),
        ("select positon from tokens", SqlError, "positon"),
        ("select * from routin", SqlError, "routing"),
        ("create table t as select 1", SqlRefusedError, "read"),
        ("select 1; select 2", SqlRefusedError, ""),
        ("select cast(token as integer) from tokens", SqlError, "Spark: "),
        ("select count(*) % 0 from tokens", SqlError, "Spark: "),
        ("select sum(9223372036854775807) from moe_layers", SqlError, "OVERFLOW"),
    ],
)
def test_what_is_refused(
    statement: str, error: type[Exception], said: str, db: Database, store: Path
) -> None:
    with pytest.raises(error, match=said):
        db.sql(statement).fetchall()


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_what_needs_one_machine_says_it_before_anything_runs(name: str, store: Path) -> None:
    settings = moedb.SparkSettings(remote="sc://127.0.0.1:1")  # where no Spark is
    with moedb.open(store, spark=settings) as nowhere:
        if ANALYSES[name].needs_one_machine:
            with pytest.raises(UsageError, match="one machine, not by Spark") as raised:
                nowhere.query(name)
            assert f"moedb query {name}, without --engine spark" in str(raised.value)
    alone = {
        *("expert-attribution", "jsd-specialization", "kmeans-baseline", "output-overlap"),
        *("promoted-tokens", "state-and-function"),
    }
    assert ANALYSES[name].needs_one_machine == (name in {*alone, "top-contexts"})


def test_files_are_checked(spark: "SparkSession", store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with moedb.open(copy, spark=moedb.SparkSettings()) as db:
        run = db.snapshot.run("small")
        (file,) = run.files("router_mass")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(StoreDamagedError, match="not what was committed"):
            db.verified().query("expert-frequency", run="small")
        assert db.verified().query("expert-frequency", run="random").fetchall()
        file.unlink()
        with pytest.raises(StoreError):
            db.query("expert-frequency", run="small").fetchall()


def test_a_label_of_examples_is_counted_without_the_decisions(
    spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    question = "select * from class_routing where key = $key order by all"
    with moedb.open(copy) as plain:
        expected = plain.sql(question, {"key": "n"}, run=RUN_ID).fetchall()
    with moedb.open(copy, spark=moedb.SparkSettings()) as db:
        for file in db.snapshot.run(RUN_ID).files("routing"):
            content = bytearray(file.read_bytes())
            end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
            content[4:end] = bytes(end - 4)  # all but what the footer says
            file.write_bytes(content)
        assert_same_rows(db.sql(question, {"key": "n"}, run=RUN_ID).fetchall(), expected)
        for key in ("pos", "kind"):
            with pytest.raises(SqlError, match="Spark: "):
                db.sql(question, {"key": key}, run=RUN_ID).fetchall()


def test_a_spark_that_runs_already_is_used(db: Database, store: Path) -> None:
    other = moedb.SparkSettings(master="spark://elsewhere:7077")
    with (
        moedb.open(store, spark=other) as elsewhere,
        pytest.raises(UsageError, match=r"already, with the master local\[2\], not spark://else"),
    ):
        elsewhere.sql("select count(*) from routing")
    with moedb.open(store, spark=moedb.SparkSettings(master="local[2]")) as same:
        assert same.sql("select count(*) from moe_layers").fetchall()


def test_a_folder_named_like_a_pattern_is_read_once(
    spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    odd = shutil.copytree(store, tmp_path / "a [b] {c,d} *?")
    with moedb.open(odd, spark=moedb.SparkSettings()) as database:
        found = database.sql("select count(*) from examples").fetchall()
    assert found == moedb.open(store).sql("select count(*) from examples").fetchall()


def test_views_of_a_database_go_with_it(spark: "SparkSession", store: Path) -> None:
    with moedb.open(store, spark=moedb.SparkSettings()) as database:
        database.sql("select count(*) from routing")
        session = database._engine._spark._session
        tables = "show tables"
        assert [row.tableName for row in session.sql(tables).collect()] == ["routing"]
        assert not spark.sql(tables).collect()
    assert not session.sql(tables).collect()


def test_provenance_names_the_engine(db: Database) -> None:
    result = db.query("load-balance", run="small")
    assert "; on Spark (its default master); moedb" in result.footer
    assert json.loads(json.dumps(result.provenance.to_dict()))["engine"].startswith("Spark")
