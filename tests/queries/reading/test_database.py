"""The Python face, over a store captured from the embedded model."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import zarr

import moedb
from moedb.errors import (
    ArrayNotFoundError,
    ParameterError,
    RunNotFoundError,
    SqlError,
    SqlRefusedError,
)
from moedb.queries.database import Database
from moedb.queries.questions.catalog import catalog
from moedb.schemas.tables import TABLES
from tests.support.oracles import example_oracle, oracle, routing_oracle
from tests.support.oracles.oracle import assert_same_rows, queries_over_one_run

pytestmark = pytest.mark.model

ORACLES = {**oracle.ORACLES, **example_oracle.ORACLES, **routing_oracle.ORACLES}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "expert-specialization": [{"key": "role"}, {"key": "order", "layer": 2, "min_decisions": 5}],
    "pair-specialization": [{"key": "role"}, {"key": "order", "layer": 2, "min_decisions": 2}],
    "expert-frequency": [{}, {"split": "all"}],
    "concentration": [{}, {"split": "corrupted"}],
    "routing-by-class": [{"key": "role"}, {"key": "template", "layer": 2}, {"key": "order"}],
    "routing-by-example": [{}, {"split": "all", "scope": "example", "layer": 3, "key": "order"}],
    "active-experts": [{}, {"scope": "example"}, {"position": 0, "split": "all"}],
    "co-activation": [{"layer": 1}, {"layer": 5, "split": "all"}],
    "co-activation-adjacent": [{"layer": 4}],
    "overlap": [
        {"key": "role", "value_a": "io", "value_b": "s2"},
        {"key": "order", "value_a": "ABBA", "value_b": "BABA", "m": 10},
        {"run_b": "other"},
    ],
    "load-balance": [{}, {"split": "all"}],
    "router-confidence": [{}, {"key": "role"}],
    "top-tokens": [{"layer": 3}, {"layer": 0, "by": "lift", "min_count": 3}],
    "cross-layer": [{"layer": 3}, {"layer": 4, "split": "all", "pairs": "rank-aligned"}],
    "saturation": [{"run_b": "other"}],
    "vocabulary-specialization": [{}, {"of": "next", "min_count": 3, "split": "all"}],
    "ioi-logit-diff": [{}, {"key": "order"}],
}


@pytest.fixture(scope="module")
def db(mini_store: Path) -> Database:
    return moedb.open(mini_store)


@pytest.fixture(scope="module")
def runs(db: Database) -> list[str]:
    return list(db.sql("select run_id from runs order by created_at").df()["run_id"])


@pytest.fixture(scope="module")
def raw(mini_store: Path) -> dict[str, pd.DataFrame]:
    """The tables as plain Parquet, read with duckdb alone."""
    found = {}
    for table in TABLES:
        files = f"{mini_store}/runs/*/tables/{table.name}/*.parquet"
        if list(mini_store.glob(f"runs/*/tables/{table.name}/*.parquet")):
            found[table.name] = duckdb.sql(f"from read_parquet('{files}')").df()
        else:
            found[table.name] = pd.DataFrame(columns=list(table.column_names))
    return found


def test_every_query_is_covered() -> None:
    assert set(SETTINGS) == queries_over_one_run() == set(ORACLES)


@pytest.mark.parametrize(
    ("name", "settings"), [(name, each) for name, all_ in SETTINGS.items() for each in all_]
)
def test_a_query_agrees_with_numpy_over_the_raw_tables(
    name: str,
    settings: dict[str, Any],
    db: Database,
    runs: list[str],
    raw: dict[str, pd.DataFrame],
) -> None:
    given = {k: runs[1] if k == "run_b" else v for k, v in settings.items()}
    actual = db.query(name, run=runs[0], **given)
    expected = ORACLES[name](raw, runs[0], **given)
    assert len(expected) > 0
    assert_same_rows(actual.df(), expected)
    # quoted: `position` is a keyword of DuckDB before 2.0
    given = {"run": runs[0], **given}
    arguments = ", ".join(f'"{key}" := {value!r}' for key, value in given.items())
    macro = db.sql(f"from {catalog()[name].macro_name}({arguments})")
    assert_same_rows(macro.df(), expected)


def test_the_newest_complete_run_is_the_default(db: Database, runs: list[str]) -> None:
    result = db.query("expert-frequency")
    assert [run.run_id for run in result.provenance.runs] == [runs[-1]]
    assert result.provenance.parameters["run"] == runs[-1]
    footer = result.provenance.footer()
    assert "model qwen-moe-mini (sha256" in footer
    assert f"run {runs[-1]}, 40 examples without their 40 corrupted twins; " in footer
    pd.testing.assert_frame_equal(
        result.df(), db.query("expert-frequency", run=runs[-1]).df(), check_exact=True
    )


def test_sql_takes_parameters_and_gives_frames(db: Database, runs: list[str]) -> None:
    frame = db.sql(
        "select layer, count(*) as n from routing where run_id = $run group by all order by layer",
        {"run": runs[0]},
    ).df()
    n_tokens = db.sql(f"select n_tokens from runs where run_id = '{runs[0]}'").fetchall()[0][0]
    assert frame["layer"].tolist() == list(range(6))
    assert (frame["n"] == 4 * n_tokens).all()


def test_an_array_is_the_zarr_array(db: Database, runs: list[str], mini_store: Path) -> None:
    array = db.array(runs[0], "expert_outputs", layer=3)
    plain = zarr.open(str(mini_store / "runs" / runs[0] / "arrays.zarr"), mode="r")
    np.testing.assert_array_equal(array[:32], plain["expert_outputs/3"][:32])
    assert array.shape[1:] == (4, 128)
    with pytest.raises(ArrayNotFoundError, match="did you mean expert_outputs"):
        db.array(runs[0], "expert_output", layer=3)
    with pytest.raises(ArrayNotFoundError, match=r"kept are layers \[0, 1, 2, 3, 4, 5\]"):
        db.array(runs[0], "expert_outputs", layer=7)
    with pytest.raises(ArrayNotFoundError, match="--arrays expert_neurons@1"):
        db.array(runs[0], "expert_neurons", layer=1)
    with pytest.raises(ValueError, match="read"):
        array[0] = 0


def test_expert_outputs_are_those_of_the_tokens_that_the_condition_picks(
    db: Database, runs: list[str], raw: dict[str, pd.DataFrame], mini_store: Path
) -> None:
    found = db.expert_outputs(
        runs[0],
        layer=3,
        where="split = 'clean' and token_idx in "
        "(select token_idx from labels where key = 'role' and value = 's2')",
    )
    labels, tokens = raw["token_labels"], raw["tokens"]
    clean = raw["examples"].query(f"run_id == '{runs[0]}' and split == 'clean'").example_id
    wanted = labels[(labels.run_id == runs[0]) & (labels.key == "role") & (labels.value == "s2")]
    mine = tokens[(tokens.run_id == runs[0]) & tokens.token_idx.isin(wanted.token_idx)]
    mine = mine[mine.example_id.isin(clean)].sort_values("token_idx")
    assert found.tokens["token_idx"].tolist() == mine.token_idx.tolist()
    assert found.values.shape == (len(mine), 4, 128) and len(mine) >= 40
    group = zarr.open(str(mini_store / "runs" / runs[0] / "arrays.zarr"), mode="r")
    np.testing.assert_array_equal(
        found.values, group["expert_outputs/3"][:][mine.array_row.to_numpy()]
    )
    routing = raw["routing"].query(f"run_id == '{runs[0]}' and layer == 3")
    for index in (0, len(mine) // 2):
        own = routing[routing.token_idx == mine.token_idx.iloc[index]].sort_values("rank")
        assert found.experts[index].tolist() == own.expert.tolist()
        np.testing.assert_array_equal(found.weights[index], own.weight)
    expert = int(found.experts[0, 0])
    assert len(found.of_expert(expert)) == (found.experts == expert).sum()


def test_expert_outputs_of_no_token_have_the_shape_of_none(db: Database) -> None:
    found = db.expert_outputs(layer=0, where="false")
    assert found.values.shape == (0, 4, 128) and found.experts.shape == (0, 4)
    with pytest.raises(SqlError, match="positon"):
        db.expert_outputs(layer=0, where="positon = 1")


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from glob('/etc/*')",
        "select * from '{store}/moedb.json'",
        "copy (select 1) to '{store}/x'",
        "create table t as select 1",
        "insert into runs values (1)",
        "with x as (insert into runs values (1) returning *) from x",
        "set enable_external_access = true",
        "pragma enable_profiling",
        "install httpfs",
        "load httpfs",
        "attach 'x.db'",
        "export database 'x'",
        "call pragma_version()",
        "explain analyze copy (select 1) to '{store}/x'",
        "explain (analyze) copy (select 1) to '{store}/x'",
        "explain (analyze /*) select 1 --*/ ) copy (select 1) to '{parquet}' (use_tmp_file false)",
        "explain /* a */ analyze copy (select 1) to '{parquet}' (use_tmp_file false)",
        "copy (select 1) to '{parquet}' (format parquet, use_tmp_file false)",
        "from secret_frame",
    ],
)
def test_sql_only_reads_the_store(db: Database, mini_store: Path, statement: str) -> None:
    secret_frame = pd.DataFrame({"password": [1]})  # a variable that DuckDB must not find
    assert len(secret_frame) == 1 and inspect.currentframe() is not None
    parquet = next(mini_store.rglob("*/tables/routing/*.parquet"))

    def state() -> list[tuple[Path, bytes]]:
        return [(p, p.read_bytes()) for p in sorted(mini_store.rglob("*.parquet"))]

    before = state()
    with pytest.raises((SqlRefusedError, SqlError)):
        db.sql(statement.format(store=mini_store, parquet=parquet)).fetchall()
    assert state() == before


@pytest.mark.parametrize(
    "statement",
    ["explain select 1", "explain analyze from runs", "EXPLAIN (analyze, format json) select 1",
     "describe routing", "show tables", "summarize moe_layers", "values (1)", "-- c\nselect 1;"],
)  # fmt: skip
def test_what_reads_is_let_through(db: Database, statement: str) -> None:
    assert db.sql(statement).fetchall()


def test_bad_names_are_named(db: Database) -> None:
    with pytest.raises(RunNotFoundError, match="no run named 'x'"):
        db.query("expert-frequency", run="x")
    with pytest.raises(ParameterError, match="did you mean"):
        db.query("expert-frequency", splt="all")
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        moedb.opne  # noqa: B018


def test_sql_imports_no_analysis(mini_store: Path) -> None:
    code = f"""
import sys, moedb
with moedb.open({str(mini_store)!r}) as db:
    assert db.sql("select count(*) from runs").fetchall() == [(2,)]
print(*(name for name in sys.modules if ".analyses" in name or ".checks" in name))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
