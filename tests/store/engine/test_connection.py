"""What a connection to a snapshot keeps to itself."""

from pathlib import Path

import duckdb
import pytest

from moedb.store.engine import connection
from moedb.store.reading.snapshot import take_snapshot
from tests.support.stores.samples import write_sample

_SLOW = "select sum(hash(i) % 11) from range(3000000) t(i)"


def test_a_slow_query_writes_nothing_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = duckdb.connect

    def connect_impatient(*given: str) -> duckdb.DuckDBPyConnection:
        opened = plain(*given)
        opened.execute("set progress_bar_time = 0")
        return opened

    impatient = connect_impatient(":memory:")
    impatient.sql(_SLOW).fetchall()
    assert "%" in capfd.readouterr().out

    write_sample(tmp_path / "store")
    monkeypatch.setattr(connection.duckdb, "connect", connect_impatient)
    quiet = connection.connect(take_snapshot(tmp_path / "store"))
    capfd.readouterr()
    quiet.sql(_SLOW).fetchall()
    assert capfd.readouterr().out == ""
