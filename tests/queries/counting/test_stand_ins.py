"""Counted rows against the SQL of the views, and against counting by hand."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import moedb
from moedb.errors import SqlError, StoreError
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.stand_ins import COUNTED, Count, StandIns
from moedb.queries.counting.vocabulary import Leading
from moedb.queries.database import Database
from moedb.queries.reading.memo import Memo
from moedb.schemas.additions import Addition
from moedb.store.writing.complete.additions import add, append
from moedb.store.writing.complete.compaction import compact_run
from tests.support.stores.made.uneven import LAYERS, OTHER, RUN, write_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counting") / "store"
    write_run(folder, RUN, 0)
    write_run(folder, OTHER, 7)
    return folder


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


PAIRS = (
    "adjacent_pairs",
    "expert_pairs",
    "expert_usage",
    "layer_pairs",
    "pair_chances",
    "rank_usage",
    "selection_sizes",
)

OF_LABELS = ("class_pairs", "class_routing", "class_sizes", "class_router_stats")

COUNTS = [
    *(Count(view, RUN, selection) for view in PAIRS
      for selection in ("default", "all", "held", "none")),
    *(Count(view, RUN, selection) for view in ("expert_mass", "selection_router_stats")
      for selection in ("default", "held", "none")),
    *(Count(view, RUN, selection, key, weighted=True)
      for view in OF_LABELS
      for selection in ("default", "corrupted") for key in ("kind", "pos", "lang", "other")),
    *(Count(view, RUN, selection, of) for view in ("vocabulary_routing", "vocabulary_usage")
      for selection in ("default", "all") for of in ("input", "next")),
    *(Count("shared_decisions", RUN, selection, of)
      for selection in ("default", "all") for of in (OTHER, RUN)),
]  # fmt: skip

NOTHING = [
    *(Count(view, RUN, "none") for view in PAIRS),
    *(Count(view, RUN, "none") for view in ("expert_mass", "selection_router_stats")),
    *(Count(view, RUN, selection, key, weighted=True)
      for view in OF_LABELS
      for selection, key in (("default", "other"), ("corrupted", "pos"))),
]  # fmt: skip
"""Those that count nothing: no such split, or no such label in it."""


def stand_ins(database: Database) -> StandIns:
    engine = database._engine
    splits = database.split_sizes
    return StandIns(engine.connection, engine.views, database.snapshot, Memo(), lambda: splits)


def rows_of(database: Database, count: Count) -> pd.DataFrame:
    """The rows of a view that a count is of, in an order of their own."""
    column = {
        **dict.fromkeys(OF_LABELS, "key"),
        "shared_decisions": "run_b",
        "vocabulary_routing": "of",
        "vocabulary_usage": "of",
    }
    where = f"run_id = '{count.run}' and selection = '{count.selection}'"
    if count.view in column:
        where += f" and {column[count.view]} = '{count.of}'"
    if count.view == "vocabulary_routing":
        where += " and token_id is not null"
    sql = f"select * from {count.view} where {where} order by all"
    database._engine.views.define(sql)
    return database._engine.connection.execute(sql).df()


def test_every_counted_view_is_tried() -> None:
    assert {count.view for count in COUNTS} == COUNTED


@pytest.mark.parametrize("count", COUNTS, ids=str)
def test_counted_rows_are_those_of_the_view(db: Database, count: Count) -> None:
    defined = rows_of(db, count)
    with stand_ins(db).standing([count]):
        counted = rows_of(db, count)
        ((kind,),) = db._engine.connection.execute(
            f"select count(*) from duckdb_views() where view_name = '{count.view}' and temporary"
        ).fetchall()
        assert kind == 1
    assert (len(defined) == 0) == (count in NOTHING)
    assert list(counted.columns) == list(defined.columns)
    assert list(counted.dtypes) == list(defined.dtypes) or not len(defined)
    pd.testing.assert_frame_equal(counted, defined, check_dtype=False, rtol=1e-12)
    pd.testing.assert_frame_equal(rows_of(db, count), defined)


def test_pairs_and_sharing_by_hand(db: Database, store: Path) -> None:
    routing = {
        run: pd.concat(
            pq.read_table(path).to_pandas() for path in db.snapshot.runs[run].files("routing")
        )
        for run in (RUN, OTHER)
    }
    chosen = {
        run: frame.sort_values("rank").groupby(["layer", "token_idx"])["expert"].apply(list)
        for run, frame in routing.items()
    }
    both = adjacent = 0
    for (layer, _), experts in chosen[RUN].items():
        if layer == 5 and {1, 3} <= set(experts):
            both += 1
            adjacent += abs(experts.index(1) - experts.index(3)) == 1
    for view, column, n in (
        ("expert_pairs", "n_both", both),
        ("adjacent_pairs", "n_adjacent", adjacent),
    ):
        pairs = rows_of(db, Count(view, RUN, "all"))
        assert pairs.query("layer == 5 and expert_a == 1 and expert_b == 3")[column].item() == n

    shared = sum(
        len(set(experts) & set(chosen[OTHER][at]))
        for at, experts in chosen[RUN].items()
        if at[0] == 1
    )
    found = rows_of(db, Count("shared_decisions", RUN, "all", OTHER))
    assert found.query("layer == 1")["n_shared"].item() == shared


def test_pairs_of_a_label_with_very_many_values_are_left_to_sql(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Count("class_pairs", RUN, "all", "pos")
    expected = rows_of(db, count)
    # two values, and of each layer as many pairs as its experts have
    cells = 2 * sum(n_experts**2 for n_experts, _ in LAYERS.values())
    for most, is_counted in ((cells, 1), (cells - 1, 0)):
        monkeypatch.setattr("moedb.queries.counting.classes._MOST_CELLS", most)
        with stand_ins(db).standing([count]):
            views = "select count(*) from duckdb_views() where view_name = 'class_pairs'"
            found = db._engine.connection.execute(f"{views} and temporary").fetchone()
            assert found == (is_counted,)
            pd.testing.assert_frame_equal(rows_of(db, count), expected, check_dtype=False)


def test_rare_token_ids_can_be_left_out(db: Database) -> None:
    count = Count("vocabulary_routing", RUN, "all", "input")
    frequent = db.sql(
        "select token_id from tokens where run_id = $run group by token_id having count(*) >= 6",
        {"run": RUN},
    ).df()["token_id"]
    defined = rows_of(db, count)
    with stand_ins(db).standing([replace(count, least=6)]):
        counted = rows_of(db, count)
    expected = defined[defined["token_id"].isin(frequent)].reset_index(drop=True)
    assert 0 < len(expected) < len(defined)
    pd.testing.assert_frame_equal(counted, expected, check_dtype=False)


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("by", ["count", "lift"])
def test_only_the_leading_token_ids_of_an_expert_can_be_counted(
    db: Database, by: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moedb.queries.counting.vocabulary._BLOCK", block)
    count = Count("vocabulary_routing", RUN, "all", "input")
    defined = rows_of(db, count)
    with stand_ins(db).standing([replace(count, leading=Leading(by, 2))]):
        counted = rows_of(db, count)
    n_token = db.sql(
        "select token_id, count(*) as n_token from tokens where run_id = $run group by token_id",
        {"run": RUN},
    ).df()
    known = defined.merge(n_token, on="token_id")
    known["lift"] = known["n_decisions"] / known["n_token"]
    measure = "n_decisions" if by == "count" else "lift"
    place = known.groupby(["layer", "expert"])[measure].rank(method="min", ascending=False)
    expected = defined[(place <= 2).to_numpy()].reset_index(drop=True)
    assert 0 < len(expected) < len(defined)
    pd.testing.assert_frame_equal(counted, expected, check_dtype=False)


def test_two_questions_about_leading_token_ids_in_a_statement(db: Database) -> None:
    calls = ("top_tokens(n := 1, min_count := 4)", "top_tokens(n := 2, \"by\" := 'lift')")
    apart = [db.sql(f"from {call}").df() for call in calls]
    columns = "layer, expert, place, token_id, n_decisions"
    both = db.sql(" union all ".join(f"(select {columns} from {call})" for call in calls)).df()
    together = pd.concat([frame[columns.split(", ")] for frame in apart], ignore_index=True)
    order = columns.split(", ")
    pd.testing.assert_frame_equal(
        both.sort_values(order, ignore_index=True), together.sort_values(order, ignore_index=True)
    )


def test_the_files_of_other_runs_are_not_read(tmp_path: Path) -> None:
    write_run(tmp_path / "store", RUN, 0)
    write_run(tmp_path / "store", OTHER, 7)
    with moedb.open(tmp_path / "store") as database:
        expected = database.query("routing-by-class", run=RUN, key="pos").df()
    with moedb.open(tmp_path / "store") as database:
        for table in ("examples", "tokens", "routing", "router_mass", "token_labels"):
            for path in database.snapshot.runs[OTHER].files(table):
                path.unlink()
        found = database.query("routing-by-class", run=RUN, key="pos").df()
        with pytest.raises(StoreError):
            database.query("routing-by-class", run=OTHER, key="pos")
    assert len(expected)
    pd.testing.assert_frame_equal(found, expected)


def test_a_closed_database_says_so(store: Path) -> None:
    with moedb.open(store) as database:
        pass
    with pytest.raises(SqlError, match="is closed"):
        database.sql("select 1")


def test_pairs_are_counted_by_hand() -> None:
    rows, columns = np.array([0, 1, 1, 0], np.int32), np.array([2, 0, 0, 1], np.int32)
    table = contingency_table(rows, columns, (2, 3))
    assert table.dtype == np.int32 and table.tolist() == [[0, 1, 1], [2, 0, 0]]
    weighted = contingency_table(rows, columns, (2, 3), np.array([0.5, 1, 2, 4], np.float32))
    assert weighted.dtype == np.float64 and weighted.tolist() == [[0, 4, 0.5], [3, 0, 0]]


def test_a_file_in_another_order_is_left_to_sql(db: Database, store: Path, tmp_path: Path) -> None:
    path, *_ = db.snapshot.runs[RUN].files("routing")
    table, content = pq.read_table(path), path.read_bytes()
    count = Count("expert_pairs", RUN, "all")
    expected = rows_of(db, count)
    for changed in (table.slice(1), table.take(list(range(table.num_rows))[::-1])):
        pq.write_table(changed, path, row_group_size=5)
        try:
            with stand_ins(db).standing([count]):
                views = "select count(*) from duckdb_views() where view_name = 'expert_pairs'"
                assert db._engine.connection.execute(f"{views} and temporary").fetchone() == (0,)
        finally:
            path.write_bytes(content)
    pd.testing.assert_frame_equal(rows_of(db, count), expected)


def test_information_of_tokens_needs_no_order(db: Database) -> None:
    def asked() -> pd.DataFrame:
        result = db.query("label-information", run=RUN, key="pos", permutations=5)
        return result.df()

    path, *_ = db.snapshot.runs[RUN].files("routing")
    table, content = pq.read_table(path), path.read_bytes()
    expected = asked()
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), path, row_group_size=5)
    try:
        found = asked()
    finally:
        path.write_bytes(content)
    assert len(found) == len(LAYERS)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        "co_activation(split := 'all', run := '{run}')",
        "routing_by_class('pos', run := '{run}')",
        "pair_specialization('pos', min_decisions := 1, run := '{run}')",
        "top_tokens(min_count := 1, run := '{run}')",
        "saturation('{other}', run := '{run}')",
    ],
)
def test_a_macro_gives_what_the_query_gives(db: Database, call: str) -> None:
    name, _, given = call.format(run=RUN, other=OTHER).partition("(")
    words = {
        "co_activation": {"split": "all"},
        "routing_by_class": {"key": "pos"},
        "pair_specialization": {"key": "pos", "min_decisions": 1},
        "top_tokens": {"min_count": 1},
        "saturation": {"run_b": OTHER},
    }[name]
    asked = db.query(name.replace("_", "-"), run=RUN, **words).df()
    assert len(asked)
    pd.testing.assert_frame_equal(db.sql(f"from {name}({given}").df(), asked, rtol=1e-12)
    # two calls of one macro in a statement, and its view beside it
    twice = f"select count(*) from {name}({given} join {name}({given} using (layer)"
    assert db.sql(twice).fetchall() == db.sql(twice).fetchall()


def test_results_outlive_the_counts(db: Database) -> None:
    one = db.query("co-activation", run=RUN)
    other = db.query("co-activation", run=OTHER)
    assert one.df().equals(one.df()) and not one.df().equals(other.df())


def test_a_compacted_run_is_counted_too(tmp_path: Path) -> None:
    write_run(tmp_path / "store", RUN, 0)
    with moedb.open(tmp_path / "store") as database:
        expected = database.query("co-activation", run=RUN).df()
    assert compact_run(tmp_path / "store", RUN)
    with moedb.open(tmp_path / "store") as database:
        assert len(database.snapshot.runs[RUN].files("routing")) == 1
        count = Count("expert_pairs", RUN, "default")
        with stand_ins(database).standing([count]):
            views = "select count(*) from duckdb_views() where view_name = 'expert_pairs'"
            assert database._engine.connection.execute(f"{views} and temporary").fetchone() == (1,)
        found = database.query("co-activation", run=RUN).df()
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


def test_stretches_of_a_file_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moedb.store.writing.complete.compaction.STRETCH_ROWS", 100)
    monkeypatch.setattr("moedb.store.writing.tables.parquet.ROW_GROUP_ROWS", 32)
    write_run(tmp_path / "store", RUN, 0)
    assert compact_run(tmp_path / "store", RUN)
    with moedb.open(tmp_path / "store") as database:
        run = database.snapshot.runs[RUN]
        assert list(each_stretch(run, lambda stretch: stretch.n_tokens)) == [10, 14]
        assert pq.ParquetFile(run.files("routing")[0]).metadata.num_row_groups > 4
        for count in (
            Count("class_routing", RUN, "default", "pos", weighted=True),
            Count("rank_usage", RUN, "all"),
        ):
            defined = rows_of(database, count)
            with stand_ins(database).standing([count]):
                counted = rows_of(database, count)
            pd.testing.assert_frame_equal(counted, defined, check_dtype=False, rtol=1e-12)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("select a.layer, b.layer from co_activation() a join co_activation() b using (expert_a)",
         ["layer", "layer"]),
        ("describe from co_activation()", ["column_name", "column_type"]),
        ("from co_activation() select layer, expert_b;", ["layer", "expert_b"]),
        ("select layer, rank from co_activation() join rank_usage using (layer)",
         ["layer", "rank"]),
    ],
)  # fmt: skip
def test_sql_around_macros_keeps_its_columns(db: Database, sql: str, columns: list[str]) -> None:
    result = db.sql(sql)
    assert result.columns[: len(columns)] == columns
    assert result.fetchall()


def test_parameters_of_sql_around_macros_may_be_lists(db: Database) -> None:
    sql = "select distinct layer from co_activation() where list_contains($layers, layer)"
    for _ in range(2):
        assert db.sql(sql, {"layers": [1, 4]}).df()["layer"].tolist() in ([1, 4], [4, 1])


def test_labels_that_were_added_are_counted_as_the_view_says(store: Path, tmp_path: Path) -> None:
    """Labels of one key in several segments, and a run whose own lie in others."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    for part, tokens in enumerate(([3, 20, 1], [5, 0, 11, 23])):
        n = len(tokens)
        rows = {"token_idx": tokens, "key": ["mark"] * n, "value": (["x", "y"] * 2)[:n]}
        append(copy, RUN, Addition("marks", "made"), str(part), {"token_labels": [pa.table(rows)]})
    other = pa.table({"token_idx": [2], "key": ["other-mark"], "value": ["x"]})
    add(copy, RUN, Addition("others", "made"), {"token_labels": [other]})
    for _ in ("as added", "compacted"):
        with moedb.open(copy) as db:
            for view in OF_LABELS:
                for key in ("mark", "other-mark", "pos"):
                    count = Count(view, RUN, "all", key, weighted=True)
                    defined = rows_of(db, count)
                    with stand_ins(db).standing([count]):
                        counted = rows_of(db, count)
                    assert len(defined)
                    pd.testing.assert_frame_equal(counted, defined, check_dtype=False, rtol=1e-12)
            sizes = rows_of(db, Count("class_sizes", RUN, "all", "mark"))
            assert sizes[["value", "n_tokens"]].values.tolist() == [["x", 4], ["y", 3]]
        compact_run(copy, RUN)
