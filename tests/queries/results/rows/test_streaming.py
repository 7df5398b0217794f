"""Rows that are read some at a time."""

import duckdb
import pyarrow.parquet as pq
import pytest

from moedb.errors import SqlError
from moedb.queries.results.export import export
from moedb.queries.results.result import Result
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import TableOptions
from tests.support.stores.result_samples import a_provenance, a_result


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_hold_every_row_in_order(size: int) -> None:
    result = a_result("select i, 'x' || i as t from range(50) t(i)")
    batches = list(result.batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [row for batch in batches for row in batch] == [(i, f"x{i}") for i in range(50)]


def test_a_result_with_parameters_is_read_so_too() -> None:
    connection = duckdb.connect()
    relation = connection.sql("select i from range($n) t(i)", params={"n": 25})
    result = Result(relation, a_provenance, connection)
    assert [row for batch in result.batches(10) for row in batch] == [(i,) for i in range(25)]


def test_the_connection_is_free_once_the_iterator_is_closed() -> None:
    result = a_result("select i from range(1000000) t(i)")
    batches = result.batches(10)
    assert next(batches)[0] == (0,)
    batches.close()
    assert result.limit(2).fetchall() == [(0,), (1,)]
    stream = RowStream(result, 5)
    assert [row for (row,) in stream.rows()] == [0, 1, 2, 3, 4]
    assert (stream.n_rows, stream.truncated) == (5, True)
    assert result.limit(2).fetchall() == [(0,), (1,)]


@pytest.mark.parametrize(
    ("limit", "n_rows", "truncated"), [(None, 3, False), (3, 3, False), (2, 2, True), (0, 0, True)]
)
def test_a_limit_says_whether_it_cut(limit: int | None, n_rows: int, truncated: bool) -> None:
    stream = RowStream(a_result("select i from range(3) t(i)"), limit)
    assert [row for (row,) in stream.rows()] == list(range(n_rows))
    assert (stream.n_rows, stream.truncated) == (n_rows, truncated)
    stream = RowStream(a_result("select i from range(3) t(i)"), limit)
    assert sum(batch.num_rows for batch in stream.arrow()) == n_rows
    assert (stream.n_rows, stream.truncated) == (n_rows, truncated)


def test_what_fails_on_the_way_leaves_no_file(tmp_path) -> None:
    late = a_result(
        "select case when i < 90000 then 1 else error('late') end as x from range(100000) t(i)"
    )
    for ending in ("csv", "parquet", "jsonl"):
        path = tmp_path / f"x.{ending}"
        path.write_text("before")
        with pytest.raises(SqlError, match="late"):
            export(late, path)
        assert path.read_text() == "before"
        assert sorted(each.name for each in tmp_path.iterdir()) == [path.name]
        path.unlink()


def test_parquet_of_many_rows(tmp_path) -> None:
    n = 2**20 + 5
    sql = f"select i, sum(i) over (order by i rows 1 preceding) as s from range({n}) t(i)"
    export(a_result(sql), tmp_path / "x.parquet")
    file = pq.ParquetFile(tmp_path / "x.parquet")
    groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    assert groups == [2**20, 5]
    table = file.read()
    assert table.column("i").to_pylist() == list(range(n))
    # a HUGEINT whose values fit is written as one of 64 bits
    assert str(table.schema.field("s").type) == "int64"
    assert table.column("s").to_pylist()[-1] == 2 * n - 3
    export(a_result(sql), tmp_path / "y.parquet", TableOptions(limit=3))
    assert pq.read_table(tmp_path / "y.parquet").column("i").to_pylist() == [0, 1, 2]
    large = f"select {2**63}::hugeint as n union all select 1"
    export(a_result(large), tmp_path / "z.parquet")
    assert str(pq.read_schema(tmp_path / "z.parquet").field("n").type) == "decimal128(38, 0)"
