"""Which runs and splits a SQL statement is said to read, over a store with three runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import moedb
from moedb.errors import ParameterError, RunNotFoundError, SqlRefusedError
from moedb.queries.database import Database
from tests.support.stores.samples import unfinish

pytestmark = pytest.mark.model

ALL = None
CLEAN = ("clean",)
CORRUPTED = ("corrupted",)


@pytest.fixture(scope="module")
def db(mini_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Two complete runs, and one that lacks its end."""
    from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
    from moedb.capture.pipeline.plan import CaptureOptions
    from moedb.capture.pipeline.running import capture

    store = tmp_path_factory.mktemp("three") / "store"
    shutil.copytree(mini_store, store)
    planned = plan_qwen_ioi(CaptureOptions(model="qwen-moe-mini"), n=2, seed=2)
    run_id = capture(planned, store).run_id
    unfinish(store, run_id)
    with moedb.open(store) as database:
        yield database


@pytest.fixture(scope="module")
def runs(db: Database) -> dict[str, str]:
    """A: the first run, B: the second, which is the default; C: the incomplete one."""
    rows = db.sql("select run_id from runs order by created_at").fetchall()
    return dict(zip("ABC", (run_id for (run_id,) in rows), strict=True))


def read(db: Database, sql: str, runs: dict[str, str]) -> dict[str, tuple[str, ...] | None]:
    """The runs that the result names, as A, B, C, with their splits."""
    letters = {run_id: letter for letter, run_id in runs.items()}
    provenance = db.sql(sql.format(**runs)).provenance
    return {
        letters[run.run_id]: ALL
        if run.splits_read is None or set(run.splits_read) == {"clean", "corrupted"}
        else tuple(sorted(run.splits_read))
        for run in provenance.runs
    }


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", {}),
        ("describe routing", {}),
        ("from query('select * from rou' || 'ting') where run_id = '{A}'", {"A": ALL}),
        ("select count(*) from \"Routing\" where run_id = '{A}'", {"A": ALL}),
        ("select * from routing where run_id = 'no such run'", {}),
        # macros: the default run, a run that is named, several
        ("from routing_by_class(key := 'role', layer := 3)", {"B": CLEAN}),
        ("from routing_by_class('role', '{A}')", {"A": CLEAN}),
        ("from routing_by_class('role', run := null)", {"B": CLEAN}),
        ("from expert_frequency(run := cast('{A}' as varchar))", {"A": CLEAN}),
        ("from routing_by_class('role', run := '{A}', split := 'all')", {"A": ALL}),
        ("from expert_frequency(split := 'corrupted')", {"B": CORRUPTED}),
        ("from overlap(run := '{A}', run_b := '{B}')", {"A": CLEAN, "B": CLEAN}),
        ("from overlap(run_b := '{A}')", {"A": CLEAN, "B": CLEAN}),
        (
            "from expert_frequency() join expert_frequency(split := 'corrupted') "
            "using (layer, expert)",
            {"B": ALL},
        ),
        ("with f as (from expert_frequency('{A}')) select * from f", {"A": CLEAN}),
        # conditions on run_id, wherever they stand
        ("select count(*) from routing where run_id = '{A}'", {"A": ALL}),
        ("select * from tokens where run_id in ('{A}', '{A}')", {"A": ALL}),
        ("select * from tokens where run_id like '{A}%' and token_idx = 3", {"A": ALL}),
        ("select * from (from tokens) as t where t.run_id = '{A}' and token = 'x'", {"A": ALL}),
        ("with t as (from tokens where run_id = '{A}') select * from t, t as u", {"A": ALL}),
        ("explain select count(*) from routing where run_id = '{A}'", {"A": ALL}),
        (
            "select * from routing join tokens using (run_id, token_idx) where run_id = '{A}'",
            {"A": ALL},
        ),
        ("select value from labels where key = 'role' and run_id = '{A}'", {"A": ALL}),
        # the run that a join or a subquery leaves
        ("select * from routing where run_id = (select run_id from latest_run)", {"B": ALL}),
        ("select * from routing where run_id in (select run_id from latest_run)", {"B": ALL}),
        ("select * from routing join latest_run using (run_id)", {"B": ALL}),
        (
            "from tokens semi join (from runs where status = 'incomplete') using (run_id)",
            {"C": ALL},
        ),
        # splits, of one run
        ("select * from examples where split = 'corrupted' and run_id = '{A}'", {"A": CORRUPTED}),
        (
            "select avg(correct) from predictions join examples using (run_id, example_id) "
            "where split = 'clean' and run_id = '{A}'",
            {"A": CLEAN},
        ),
        (
            "select count(*) from routing join tokens using (run_id, token_idx) "
            "join examples using (run_id, example_id) where split = 'clean' and run_id = '{A}'",
            {"A": CLEAN},
        ),
        (
            "select * from tokens where run_id = '{A}' and example_id in "
            "(select example_id from examples where split = 'clean' and run_id = '{A}')",
            {"A": CLEAN},
        ),
        (
            "select * from examples left join tokens using (run_id, example_id) "
            "where split = 'clean' and run_id = '{A}'",
            {"A": CLEAN},
        ),
        # the twins' tokens are read too
        (
            "select * from tokens left join (from examples where split = 'clean') as e "
            "using (run_id, example_id) where run_id = '{A}'",
            {"A": ALL},
        ),
        (
            "select (select count(*) from examples where split = 'clean' and run_id = '{A}'), "
            "count(*) from routing where run_id = '{A}'",
            {"A": ALL},
        ),
        # a table beside a macro
        (
            "from expert_frequency('{A}') as f join routing as r on f.expert = r.expert "
            "where r.run_id = '{B}'",
            {"A": CLEAN, "B": ALL},
        ),
        ("from expert_frequency('{A}') cross join (from runs where run_id = '{A}')", {"A": CLEAN}),
        # the runs themselves
        ("from runs", {"A": ALL, "B": ALL, "C": ALL}),
    ],
)
def test_what_is_read_is_named_and_nothing_else(
    sql: str, expected: dict[str, tuple[str, ...] | None], db: Database, runs: dict[str, str]
) -> None:
    assert read(db, sql, runs) == expected
    assert db.sql(sql.format(**runs)).provenance.certain


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from examples",
        "summarize routing",
        "select count(*) from tokens where run_id in ('{A}', '{B}', '{C}')",
        "select * from tokens where run_id = (select max(run_id) from runs)",
        "from expert_frequency(run := (select max(run_id) from runs))",
        "from expert_frequency(run := lower('{A}'))",
        "pivot (from routing where layer = 1) on rank in (0, 1) using count(*)",
        # columns that are called as keys and are none
        "select * from routing as r join (select run_id as x, '{A}' as run_id from runs "
        "where n_tokens > 0) as named on r.run_id = named.x",
        "select r.* from routing as r join (select '{A}' as run_id from runs where job = 'text' "
        "union all select '{B}') as named using (run_id)",
    ],
)
def test_where_it_cannot_be_known_any_run_may_be_read(
    sql: str, db: Database, runs: dict[str, str]
) -> None:
    provenance = db.sql(sql.format(**runs)).provenance
    assert not provenance.certain
    assert {run.run_id for run in provenance.runs} == set(runs.values())
    assert provenance.footer().startswith("any of these 3 runs: model qwen-moe-mini")
    assert provenance.to_dict()["certain"] is False


@pytest.mark.parametrize(
    "sql",
    [
        "select run_id, example_id from routing join tokens using (run_id, token_idx) "
        "where run_id in (select run_id from runs where n_examples > 4)",
        "select t.run_id, e.example_id from tokens as t right join "
        "(select run_id, example_id from examples where split = 'corrupted') as e "
        "using (run_id, example_id) where t.token is not null",
        "select run_id, example_id from example_labels where run_id not in "
        "(select run_id from latest_run)",
        "select run_id, example_id from tokens anti join (from examples where split = 'clean') "
        "using (run_id, example_id)",
        "select a.run_id, b.example_id from tokens a join examples b on a.run_id = '{A}' "
        "and b.run_id = '{B}' and a.example_id = b.example_id and b.split = 'clean'",
        "select run_id, example_id from tokens where exists (select 1 from examples as e "
        "where e.example_id = tokens.example_id and e.run_id = tokens.run_id "
        "and e.split = 'clean') and run_id = '{B}'",
        "with recursive t as (select run_id, example_id from examples where run_id = '{C}' "
        "and split = 'clean' union select run_id, example_id from t) from t",
        "select run_id, example_id from (select split as run_id, run_id as split, example_id "
        "from examples) as e(split, run_id, example_id) where run_id = '{A}'",
    ],
)
def test_every_row_is_from_what_is_named(sql: str, db: Database, runs: dict[str, str]) -> None:
    result = db.sql(sql.format(**runs))
    examples = db.sql("select run_id, example_id, split from examples").fetchall()
    splits = {(run_id, example_id): split for run_id, example_id, split in examples}
    named = {run.run_id: run.splits_read for run in result.provenance.runs}
    rows = set(result.fetchall())
    assert rows
    for run_id, example_id in rows:
        assert run_id in named
        read_of_it = named[run_id]
        assert read_of_it is None or splits[run_id, example_id] in read_of_it


def test_the_beginning_of_a_runs_name_does_in_macros(db: Database, runs: dict[str, str]) -> None:
    begun = runs["A"][:-2]
    for sql, parameters in (
        (f"from routing_by_class('role', run := '{begun}')", {}),
        ("from routing_by_class('role', run := $which)", {"which": begun}),
    ):
        result = db.sql(sql, parameters)
        assert (
            result.fetchall() == db.query("routing-by-class", key="role", run=runs["A"]).fetchall()
        )
        assert [run.run_id for run in result.provenance.runs] == [runs["A"]]
    with pytest.raises(RunNotFoundError, match="is the beginning of several runs"):
        db.sql("from routing_by_class('role', run := 'qwen-ioi')")
    with pytest.raises(RunNotFoundError, match="no run named 'text-1'"):
        db.sql("from overlap(run_b := 'text-1')")


def test_wrong_arguments_of_macros_are_told_as_those_of_queries_are(db: Database) -> None:
    with pytest.raises(ParameterError, match="no parameter 'kye'; did you mean key"):
        db.sql("from routing_by_class(kye := 'role')")
    with pytest.raises(ParameterError, match="needs the parameter 'key'"):
        db.sql("from routing_by_class()")
    with pytest.raises(ParameterError, match="layer is an integer, not 'three'"):
        db.sql("from routing_by_class('role', layer := 'three')")


def test_views_can_hold_one_run_alone(db: Database, runs: dict[str, str]) -> None:
    for letter, n_examples in (("A", 80), ("C", 4)):
        result = db.sql("select count(*) from examples", run=runs[letter])
        assert result.fetchall() == [(n_examples,)]
        assert [run.run_id for run in result.provenance.runs] == [runs[letter]]
        assert result.provenance.certain
        assert db.sql("from latest_run", run=runs[letter]).fetchall() == [(runs[letter],)]
        frequency = db.sql("from expert_frequency()", run=runs[letter][:-1])
        expected = db.query("expert-frequency", run=runs[letter]).fetchall()
        assert frequency.fetchall() == expected
    assert db.sql("select $run", run=runs["A"]).fetchall() == [(runs["A"],)]
    with pytest.raises(RunNotFoundError):
        db.sql("select 1", run="nope")
    with pytest.raises(SqlRefusedError):
        db.sql("create table t (x integer)", run=runs["A"])


@pytest.mark.parametrize("table", ["tokens", "routing", "examples", "runs", "expert_usage"])
def test_what_is_only_counted_is_read(db: Database, runs: dict[str, str], table: str) -> None:
    found = db.sql(f"select count(*) from {table}", run=runs["A"])
    assert [run.run_id for run in found.provenance.runs] == [runs["A"]]


def test_planning_reads_no_file_of_the_store(db: Database, runs: dict[str, str]) -> None:
    """A statement that would take for ever costs nothing to name the runs of."""
    slow = "select count(*) from routing as a, routing as b, routing as c, routing as d"
    assert len(db.sql(slow).provenance.runs) == 3


def test_an_empty_answer_of_sql_says_why(db: Database, runs: dict[str, str]) -> None:
    nothing_left = db.sql("select token from tokens where run_id = 'qwen'").why_empty()
    assert nothing_left.startswith("the SQL's conditions leave no run of the store, which has ")
    assert all(run_id in nothing_left for run_id in runs.values())
    macro = "top_tokens(layer := 1, min_count := 1000000)"
    said = db.sql(f"select token from {macro}").why_empty()
    reason = db.query("top-tokens", layer=1, min_count=1000000).why_empty()
    assert said == f"top_tokens gives none: {reason}"
    assert (
        db.sql("from expert_frequency() where share > 9").why_empty() == "the SQL selects nothing"
    )
