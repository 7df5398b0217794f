"""Rows of arrays in SQL, held against the arrays themselves."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moedb
from moedb.errors import (
    ArrayNotFoundError,
    RunNotFoundError,
    SqlError,
    SqlRefusedError,
    StoreDamagedError,
    UsageError,
)
from moedb.queries.database import Database
from moedb.queries.reading.arrays.functions import KeptChunks
from moedb.schemas.arrays import ARRAY_FUNCTIONS, ARRAYS, ArraySpec
from moedb.store.arrays.stored import ArrayKey, array_form
from moedb.store.layout import RunLayout
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import (
    LAYERS,
    RUN_ID,
    rows_of_run,
    sample_manifest,
    unit_rows,
    write_sample,
)

OTHER = "text-other"
N_TOKENS = 700


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps every kind of array, of two units, and one that keeps none."""
    folder = tmp_path_factory.mktemp("arrays") / "store"
    plain = sample_manifest(
        n_units=2,
        tokens_per_unit=N_TOKENS,
        arrays=tuple(spec.name for spec in ARRAYS if spec.first == "T"),
        n_vocabulary=120,
    )
    manifest = replace(plain, layers=tuple({**layer, "d_shared": 5} for layer in plain.layers))
    writer = RunWriter(folder, manifest)
    tables, arrays = rows_of_run(manifest)
    writer.begin(tables, arrays=arrays)
    rng = np.random.default_rng(0)
    for unit in range(2):
        rows, kept = unit_rows(manifest, unit)
        for spec in ARRAYS:
            for layer in LAYERS if spec.first == "T" else ():
                key = ArrayKey(spec.name, layer)
                shape = (N_TOKENS, *array_form(manifest, key).shape[1:])
                kept.setdefault(key, rng.normal(size=shape).astype(np.float32))
        if unit == 1:  # as of tokens that arrays do not keep
            tokens = dict(rows["tokens"])
            tokens["array_row"] = [None, *tokens["array_row"][1:]]
            rows = {**rows, "tokens": tokens}
        writer.commit_unit(unit, rows, kept)
    writer.finish()
    write_sample(folder, n_units=1, run_id=OTHER, arrays=())
    return folder


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


def lists(rows: list[tuple[Any, ...]]) -> np.ndarray:
    return np.array([row[-1] for row in rows], dtype=np.float32)


@pytest.mark.parametrize("spec", ARRAY_FUNCTIONS.values(), ids=lambda spec: spec.function)
def test_a_function_gives_the_rows_of_its_array(db: Database, spec: ArraySpec) -> None:
    rows, table = ("token_id", "vocabulary") if spec.first == "V" else ("array_row", "tokens")
    layer = 4 if spec.first == "V" else 3
    values = db.array(RUN_ID, spec.name, layer)[:]
    n_slots = values.shape[1] if spec.slot else 1
    given = {"run_id": "run_id", "layer": "3", rows: rows, spec.slot: "slot::integer"}
    call = f"{spec.function}({', '.join(given[name] for name in spec.arguments)})"
    found = db.sql(
        f"select {rows}, slot, {call} as vector from {table}, range({n_slots}) as of(slot) "
        f"where run_id = '{RUN_ID}' and {rows} is not null order by hash({rows}, slot)"
    )
    assert found.types[-1] == "FLOAT[]"
    got = found.fetchall()
    assert len(got) == (120 if spec.first == "V" else 2 * N_TOKENS - 1) * n_slots
    places = np.array([row[:2] for row in got])
    expected = values[places[:, 0]]
    if spec.slot:
        expected = expected[np.arange(len(got)), places[:, 1]]
    assert np.array_equal(lists(got), expected)


def test_cosines_of_two_ranks_are_those_of_the_outputs(db: Database) -> None:
    one, two = (f"expert_output(run_id, layer, array_row, {rank})" for rank in (0, 1))
    found = db.sql(
        f"select token_idx, layer, list_cosine_similarity({one}, {two}) as cosine "
        "from routing join tokens using (run_id, token_idx) "
        "where rank = 0 and array_row is not null order by layer, token_idx",
        run=RUN_ID,
    ).fetchall()
    expected = []
    for layer in LAYERS:
        kept = db.expert_outputs(RUN_ID, layer=layer)
        first, second = kept.values[:, 0].astype(float), kept.values[:, 1].astype(float)
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        cosines = (first * second).sum(axis=1) / norms
        expected += list(zip(kept.tokens["token_idx"], [layer] * len(first), cosines, strict=True))
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert np.allclose([row[2] for row in found], [row[2] for row in expected], atol=1e-6)


def test_what_has_no_row_is_null(db: Database) -> None:
    found = db.sql(
        "select array_row is null, shared_output(run_id, 1, array_row) is null, count(*) "
        f"from tokens where run_id = '{RUN_ID}' group by all order by all"
    ).fetchall()
    assert found == [(False, False, 2 * N_TOKENS - 1), (True, True, 1)]
    nulls = "select expert_output(null, 1, 2, 0), expert_output($run, 1, 2, null)"
    assert db.sql(nulls, {"run": RUN_ID}).fetchall() == [(None, None)]


def test_layers_of_different_experts_come_in_one_call(db: Database) -> None:
    found = db.sql(
        "select layer, rank, array_row, expert_output(run_id, layer, array_row, rank) "
        "from routing join tokens using (run_id, token_idx) "
        f"where run_id = '{RUN_ID}' and array_row is not null order by random()"
    ).fetchall()
    assert len(found) == len(LAYERS) * 2 * (2 * N_TOKENS - 1)
    values = {layer: db.array(RUN_ID, "expert_outputs", layer)[:] for layer in LAYERS}
    expected = np.stack([values[layer][row, rank] for layer, rank, row, _ in found])
    assert np.array_equal(lists(found), expected)


class Counted:
    """An array that counts the rows that are read of it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.read = values, values.shape, [0, 0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self.values[rows]
        self.read = [self.read[0] + 1, self.read[1] + len(found)]
        return found


class Asked:
    spec, run, layer, key = ARRAY_FUNCTIONS["expert_output"], "r", 3, ("expert_outputs", "r", 3)

    def check(self, *_: object) -> None:
        pass


def test_chunks_are_read_once_and_neighbours_together() -> None:
    values = np.arange(2048 * 2 * 3, dtype=np.float32).reshape(2048, 2, 3)
    stored = Counted(values)
    chunks: Any = KeptChunks(lambda *_: stored)
    rows = np.random.default_rng(0).permutation(2048)
    for rank in (0, 1, 0):
        for batch in np.split(rows, 4):
            ranks = np.full(len(batch), rank)
            assert np.array_equal(chunks.read(Asked(), batch, ranks), values[batch, rank])
    assert stored.read == [2, 2048]  # a call for each shard


@pytest.mark.parametrize("n_kept", [0, 1, 5, 40])
def test_few_kept_chunks_give_the_same(n_kept: int) -> None:
    values = np.random.default_rng(1).normal(size=(2048, 2, 3)).astype(np.float32)
    chunks: Any = KeptChunks(lambda *_: Counted(values), most_bytes=n_kept * values[:64].nbytes)
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = rng.integers(0, 2048, 300)
        ranks = rng.integers(0, 2, 300)
        assert np.array_equal(chunks.read(Asked(), rows, ranks), values[rows, ranks])
        kept = sum(chunk.nbytes for chunk in chunks._kept.values())
        assert chunks._n_bytes == kept <= max(n_kept, 16) * values[:64].nbytes


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("expert_output('text-0', 2, 4, 1)", ArrayNotFoundError, r"kept are layers \[1, 3\]"),
        (f"router_logits('{OTHER}', 1, 4)", ArrayNotFoundError, "--arrays router_logits@1"),
        (f"unembedding('{OTHER}', 4)", ArrayNotFoundError, "no unembedding: it keeps none"),
        ("shared_output('nosuch', 1, 4)", RunNotFoundError, "no run named 'nosuch'"),
        ("expert_output('text-0', 1, 4, 2)", UsageError, "there is no rank 2 .* it is 0 to 1"),
        ("expert_output('text-0', 1, -1, 0)", UsageError, "there is no array_row -1 in"),
        ("expert_output('text-0', 1, 2048, 0)", UsageError, "array_row 2048 .* 0 to 2047"),
        ("expert_output('text-0', 1, 4)", SqlError, "VARCHAR.* INTEGER.* BIGINT.* INTEGER"),
    ],
)
def test_what_is_not_there_is_said(
    db: Database, call: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        db.sql(f"select {call}").fetchall()
    if error is not SqlError:  # where it is not found before rows are computed
        from_rows = call.replace("'text-0'", "run_id").replace(f"'{OTHER}'", "run_id")
        statement = f"select {from_rows.replace(chr(39) + 'nosuch' + chr(39), 'token')} from tokens"
        with pytest.raises(error):
            db.sql(f"{statement} where run_id in ('{RUN_ID}', '{OTHER}')").fetchall()
    assert db.sql("select 1").fetchall() == [(1,)]


def test_sql_still_reaches_nothing_else(db: Database) -> None:
    assert db.sql("select len(residual_pre('text-0', 1, 0))").fetchall() == [(8,)]
    for statement in ("from read_csv('/etc/passwd')", f"from read_text('{__file__}')"):
        with pytest.raises(SqlRefusedError):
            db.sql(f"select residual_pre('text-0', 1, 0), * {statement}").fetchall()
    for statement in ("create table t as select 1", "install httpfs", "attach '/tmp/x.duckdb'"):
        with pytest.raises(SqlRefusedError):
            db.sql(statement)


def test_a_database_of_one_run_reads_that_run_alone(db: Database) -> None:
    assert db.sql("select len(residual_pre($run, 1, 0))", run=RUN_ID).fetchall() == [(8,)]
    with pytest.raises(RunNotFoundError):
        db.sql(f"select residual_pre('{RUN_ID}', 1, 0)", run=OTHER).fetchall()


@pytest.mark.parametrize(
    ("statement", "runs", "certain"),
    [
        ("select residual_pre('text-0', 1, 0)", [RUN_ID], True),
        (
            "select residual_pre(run_id, 1, array_row)[1] as x from tokens "
            f"where run_id = '{RUN_ID}' and residual_pre(run_id, 1, array_row)[1] > 0",
            [RUN_ID],
            True,
        ),
        (f"select residual_pre('{RUN_ID}', 1, 0) from runs limit 1", [RUN_ID, OTHER], True),
        ("select residual_pre(concat('text', '-0'), 1, 0)", [RUN_ID, OTHER], False),
        ("select residual_pre(r, 1, 0) from (values ('text-0')) as t(r)", [RUN_ID, OTHER], False),
    ],
)
def test_the_runs_of_arrays_are_named(
    db: Database, statement: str, runs: list[str], certain: bool
) -> None:
    found = db.sql(statement)
    assert found.fetchall()
    assert [run.run_id for run in found.provenance.runs] == runs
    assert found.provenance.certain is certain


def test_data_are_verified_where_that_is_asked_for(tmp_path: Path) -> None:
    write_sample(tmp_path / "store", n_units=2, arrays=("expert_outputs",))
    folder = RunLayout(tmp_path / "store", RUN_ID).arrays / "expert_outputs/3/c/1"
    (shard,) = (path for path in folder.rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with moedb.open(tmp_path / "store") as db, pytest.raises(StoreDamagedError, match="not what"):
        db.verified().sql(f"select expert_output('{RUN_ID}', 3, 0, 0)").fetchall()


def test_a_database_that_nobody_holds_goes(store: Path) -> None:
    database = moedb.open(store)
    assert database.sql("select len(residual_pre('text-0', 1, 0))").fetchall() == [(8,)]
    gone = weakref.ref(database)
    del database
    gc.collect()
    assert gone() is None
    # but what asks is held by its answer
    result = moedb.open(store).sql("select len(residual_pre('text-0', 1, 0))")
    gc.collect()
    assert result.fetchall() == [(8,)]


def test_a_database_left_open_ends_without_a_word(store: Path) -> None:
    code = (
        "import sys, moedb; db = moedb.open(sys.argv[1]); "
        "found = db.sql(\"select len(residual_pre('text-0', 1, 0))\"); print(found.fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[(8,)]\n", "")
