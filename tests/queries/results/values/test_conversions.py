"""Values of every SQL type through every format, beside what SQL itself prints of them."""

import csv
import io
import json

import duckdb
import pyarrow.parquet as pq
import pytest

from moedb.queries.results.sheets import TableOptions
from moedb.schemas.formats import FORMATS
from moedb.store.engine.connection import connect
from moedb.store.reading.snapshot import take_snapshot
from tests.support.stores.result_samples import a_result, render
from tests.support.stores.samples import write_sample

# SQL, and what every format to look at and CSV print of it
EXACT = {
    "timestamptz '2026-01-31 12:00:00.123456+02'": "2026-01-31 10:00:00.123456+00",
    "'infinity'::timestamptz": "infinity",
    "'-infinity'::timestamp": "-infinity",
    "timestamp '12026-01-01 00:00:00'": "12026-01-01 00:00:00",
    "timestamp '0044-03-15 (BC) 12:00:00'": "0044-03-15 (BC) 12:00:00",
    "timestamp_s '2026-01-31 12:00:00'": "2026-01-31 12:00:00",
    "timestamp_ms '2026-01-31 12:00:00.123'": "2026-01-31 12:00:00.123",
    "timestamp_ns '2026-01-31 12:00:00.123456789'": "2026-01-31 12:00:00.123456789",
    "date 'infinity'": "infinity",
    "date '-infinity'": "-infinity",
    "date '10000-01-01'": "10000-01-01",
    "date '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "time '12:34:56.789'": "12:34:56.789",
    "time '24:00:00'": "24:00:00",
    "timetz '12:34:56+02:30'": "12:34:56+02:30",
    "interval '1 year 2 months 3 days 4 hours'": "1 year 2 months 3 days 04:00:00",
    "interval '-5 minutes'": "-00:05:00",
    "'00000000-0000-0000-0000-000000000001'::uuid": "00000000-0000-0000-0000-000000000001",
    "'0101'::bit": "0101",
    "170141183460469231731687303715884105727": "170141183460469231731687303715884105727",
    "340282366920938463463374607431768211455::uhugeint": "340282366920938463463374607431768211455",
    "123456789012345678901234567890123456789::bignum": "123456789012345678901234567890123456789",
    "'b'::enum('a', 'b')": "b",
    "union_value(day := date 'infinity')": "infinity",
}
NESTED = {
    "[date 'infinity', null]": ["infinity", None],
    "[[interval 1 month]]": [["1 month"]],
    "array_value(time '24:00', time '01:00')": ["24:00:00", "01:00:00"],
    "{'a': timestamptz '2026-01-31 12:00:00+02', 'b c': 1}": {
        "a": "2026-01-31 10:00:00+00",
        "b c": 1,
    },
    "map {'x': timetz '12:00:00+02'}": {"x": "12:00:00+02"},
    "map {date 'infinity': [1]}": {"infinity": [1]},
}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections of the tests print times as those to a store do."""
    plain = duckdb.connect

    def connected(*given: str) -> duckdb.DuckDBPyConnection:
        connection = plain(*given)
        connection.execute("set TimeZone = 'UTC'")
        return connection

    monkeypatch.setattr(duckdb, "connect", connected)


@pytest.mark.parametrize("sql", EXACT)
def test_values_are_printed_as_sql_does(sql: str) -> None:
    shown = EXACT[sql]
    result = a_result(f'select {sql} as x, 1 as "X y"')
    assert render(result, "csv") == f"x,X y\r\n{shown},1\r\n"
    assert str(json.loads(render(result, "json"))[0]["x"]) == shown
    assert str(json.loads(render(result, "jsonl"))["x"]) == shown
    assert render(result, "table").splitlines()[2].split("  ")[0].strip() == shown
    for format_ in ("markdown", "html"):
        assert shown in render(result, format_)
    assert "\\begin{tabular}" in render(result, "latex")


@pytest.mark.parametrize("sql", NESTED)
def test_values_within_others_are_printed_as_sql_does(sql: str) -> None:
    result = a_result(f"select {sql} as x")
    assert json.loads(render(result, "json")) == [{"x": NESTED[sql]}]
    (cell,) = list(csv.reader(io.StringIO(render(result, "csv"), newline="")))[1]
    assert json.loads(cell) == NESTED[sql]


@pytest.mark.parametrize("sql", [*EXACT, *NESTED])
def test_parquet_holds_every_type(sql: str, tmp_path) -> None:
    """DuckDB reads back what it would print, whatever the type became."""
    result = a_result(f"select {sql} as x")
    path = tmp_path / "x.parquet"
    path.write_bytes(render(result, "parquet"))
    connection = duckdb.connect()
    read = connection.sql(f"select x::varchar from '{path}'").fetchall()
    if "timetz '" not in sql and not sql.startswith(("map", "{", "[", "time '24", "array")):
        # DuckDB 1 reads pyarrow's times as times in UTC
        assert read in ([(EXACT[sql],)], [(f"{EXACT[sql]}+00",)])
    assert len(read) == 1 and read[0][0] is not None


def test_parquet_of_a_pivot() -> None:
    result = a_result(
        "select * from (values (1, 'a', interval 1 month), (1, 'b', interval 2 days)) t(i, k, v)"
    )
    options = TableOptions(pivot=("i", "k", "v"))
    table = pq.read_table(io.BytesIO(render(result, "parquet", options)))
    assert table.to_pylist() == [{"i": 1, "a": "1 month", "b": "2 days"}]
    assert render(result, "csv", options) == "i,a,b\r\n1,1 month,2 days\r\n"
    huge = a_result("select 1 as i, 'a' as k, 340282366920938463463374607431768211455 as v")
    table = pq.read_table(io.BytesIO(render(huge, "parquet", options)))
    assert table.to_pylist() == [{"i": 1, "a": "340282366920938463463374607431768211455"}]


def test_frames_and_arrow_take_every_type() -> None:
    for sql in EXACT:
        result = a_result(f"select {sql} as x")
        assert result.arrow().num_rows == 1
        if sql not in ("date 'infinity'", "date '-infinity'"):  # DuckDB refuses them
            assert len(result.df()) == 1
    result = a_result(
        "select timetz '12:00:00+02' as t, 340282366920938463463374607431768211455 as n"
    )
    assert result.df().loc[0].tolist() == ["12:00:00+02", "340282366920938463463374607431768211455"]


def test_order_names_and_provenance_stay() -> None:
    result = a_result(
        "select i, date '2026-01-01' + i::int as \"A day\", i as a from range(3000) t(i)"
    )
    lines = render(result, "csv").splitlines()
    assert lines[0] == "i,A day,a"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(3000)]
    assert result.types[1] == "DATE"


def test_the_time_of_a_store_is_in_utc_everywhere(tmp_path, monkeypatch) -> None:
    """`select now()` needs no library beside DuckDB, and prints no local time."""
    monkeypatch.undo()
    monkeypatch.setenv("TZ", "America/New_York")
    monkeypatch.setitem(__import__("sys").modules, "pytz", None)
    write_sample(tmp_path / "store")
    connection = connect(take_snapshot(tmp_path / "store"))
    from moedb.queries.results.result import Provenance, Result

    for format_ in FORMATS:
        relation = connection.sql(
            "select now() as now, timestamptz '2026-01-31 12:00:00+02' as x, [now()] as many"
        )
        result = Result(relation, lambda: Provenance(None, "", {}, (), "", ""), connection)
        text = render(result, format_)
        if format_ == "csv":
            assert text.splitlines()[1].split(",")[1] == "2026-01-31 10:00:00+00"


def test_times_in_python_know_their_zone(tmp_path) -> None:
    import moedb

    write_sample(tmp_path / "store")
    with moedb.open(tmp_path / "store") as database:
        ((time,),) = database.sql("select timestamptz '2026-01-31 12:00:00+02'").fetchall()
    assert time.isoformat() == "2026-01-31T10:00:00+00:00"
