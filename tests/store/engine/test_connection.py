"""What a connection to a snapshot keeps to itself."""

from pathlib import Path

import duckdb
import pytest

from moedb.errors import StoreDamagedError, StoreError
from moedb.store.engine import connection
from moedb.store.layout import RunLayout
from moedb.store.reading import snapshot as reading
from moedb.store.reading.snapshot import take_snapshot
from tests.support.stores.samples import RUN_ID, write_sample

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


OTHER = "text-0199999999"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for run_id in (RUN_ID, OTHER):
        write_sample(tmp_path / "store", n_units=2, run_id=run_id, arrays=("router_logits",))
    (tmp_path / "outside.parquet").write_bytes(b"secret")
    return tmp_path / "store"


def file_of(store: Path, table: str, run_id: str = RUN_ID) -> Path:
    return next((RunLayout(store, run_id).tables / table).glob("000001-*"))


def test_files_outside_of_the_tables_cannot_be_read(store: Path) -> None:
    opened = connection.connect(take_snapshot(store).only(RUN_ID))
    layout = RunLayout(store, RUN_ID)
    routing, theirs = layout.tables / "routing", file_of(store, "routing", OTHER)
    beside = layout.tables / "routing-2"
    beside.mkdir()
    (beside / "x.parquet").write_bytes(b"secret")
    refused = [
        store.parent / "outside.parquet",
        store / "moedb.json",
        layout.manifest,
        layout.segment("000000"),
        layout.head(0),
        layout.arrays / "zarr.json",
        theirs,
        beside / "x.parquet",
        routing / f"../../../../runs/{OTHER}/tables/routing/{theirs.name}",
        routing / "../../../../../outside.parquet",
        routing / "../../run.json",
    ]
    for path in refused:
        for function in ("read_text", "read_blob", "read_parquet", "read_csv"):
            with pytest.raises(duckdb.PermissionException):
                opened.sql(f"select * from {function}('{path}')").fetchall()
        with pytest.raises(duckdb.PermissionException):
            opened.sql(f"copy (select 1) to '{path}'")
    for statement in ("set allowed_directories = ['/']", "set enable_external_access = true"):
        with pytest.raises(duckdb.Error):
            opened.execute(statement)
    assert opened.sql("select count(*) from routing").fetchall() == [(40,)]


@pytest.mark.parametrize("place", ["tables/routing/000009-ab.parquet", "tables/tokens/notes/x"])
def test_a_link_beside_a_table_makes_its_run_a_damaged_one(store: Path, place: str) -> None:
    """Whoever asks in SQL for the link by its name would read what it leads to."""
    link = RunLayout(store, RUN_ID).folder / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(store.parent / "outside.parquet")
    snapshot = take_snapshot(store)
    assert list(snapshot.damaged) == [RUN_ID]
    assert f"{link} is a symbolic link" in snapshot.damaged[RUN_ID].error.message
    with pytest.raises(duckdb.PermissionException):
        connection.connect(snapshot).sql(f"select * from read_text('{link}')").fetchall()
    link.unlink()
    assert not take_snapshot(store).damaged


def test_of_a_large_run_a_table_is_looked_at_when_it_is_asked(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LOOKED_AT", 3)
    short = file_of(store, "router_stats")
    short.write_bytes(short.read_bytes()[:-1])
    snapshot = take_snapshot(store)
    assert set(snapshot.runs) == {RUN_ID, OTHER}
    opened, views = connection.open_engine(snapshot)
    views.define("select count(*) from routing")
    assert opened.sql("select count(*) from routing").fetchall() == [(80,)]
    with pytest.raises(StoreDamagedError, match=f"run {RUN_ID}: {short} has"):
        views.define("select count(*) from router_stats")
    # one that is not there is found at once, by the names
    file_of(store, "tokens").unlink()
    assert list(take_snapshot(store).damaged) == [RUN_ID]
    with pytest.raises(StoreError, match=r"tokens/000001-.* is gone: the run was compacted"):
        views.define("select count(*) from tokens")
