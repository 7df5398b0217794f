"""Questions over a store on object storage: what they answer is what they answer over a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.errors import MoedbError, SqlError, SqlRefusedError, UsageError
from moedb.queries.database import Database
from moedb.queries.report.duckdb_file import write_duckdb
from tests.queries.reading.test_database import SETTINGS
from tests.support.servers.s3_buckets import Bucket, Server
from tests.support.stores.samples import write_sample

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def both(mini_store: Path, s3_server: Server) -> Iterator[tuple[Database, Database]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        yield moedb.open(mini_store), moedb.open(Bucket(s3_server).put(mini_store))


def given_of(name: str, both: tuple[Database, Database]) -> list[dict[str, Any]]:
    runs = sorted(both[0].snapshot.runs)
    return [
        {"run": runs[0], **{k: runs[1] if k == "run_b" else v for k, v in settings.items()}}
        for settings in SETTINGS[name]
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_named_queries_answer_the_same(name: str, both: tuple[Database, Database]) -> None:
    for given in given_of(name, both):
        local, remote = (db.query(name, **given) for db in both)
        rows = [result.df() for result in (local, remote)]
        # counted by another engine, in another order of adding up
        pd.testing.assert_frame_equal(*rows, rtol=1e-9, atol=1e-12)
        assert len(rows[0]) and remote.provenance.snapshot == local.provenance.snapshot
        assert remote.provenance.footer() == local.provenance.footer()


def test_analyses_of_arrays_answer_the_same(both: tuple[Database, Database]) -> None:
    for name, settings in (
        ("output-overlap", {}),
        ("kmeans-baseline", {"layer": 2}),
        ("logit-lens", {}),
    ):
        rows = [db.query(name, **settings).df() for db in both]
        pd.testing.assert_frame_equal(*rows, rtol=1e-9, atol=1e-12)
        assert len(rows[0])


def test_rows_of_arrays_in_sql_are_the_same(both: tuple[Database, Database]) -> None:
    run = sorted(both[0].snapshot.runs)[0]
    rows = (
        "select token_idx, rank, expert_output(run_id, layer, array_row, rank) as vector "
        "from routing join tokens using (run_id, token_idx) where layer = 3 order by all limit 300"
    )
    found = [db.sql(rows, run=run).fetchall() for db in both]
    assert found[0] == found[1] and len(found[0]) == 300


def test_a_file_of_duckdb_copies_what_is_elsewhere(
    both: tuple[Database, Database], tmp_path: Path
) -> None:
    file = tmp_path / "x.duckdb"
    run = sorted(both[0].snapshot.runs)[0]
    with pytest.raises(UsageError, match="--copy"):
        write_duckdb(both[1], file, run, copied_bytes=1000)
    assert not file.exists()
    assert write_duckdb(both[1], file, run, copy=True).in_place == ()
    with duckdb.connect(str(file), read_only=True) as plain:
        found = plain.sql("from concentration()").df()
        ((store,),) = plain.sql("select store from provenance").fetchall()
    pd.testing.assert_frame_equal(found, both[0].query("concentration", run=run).df(), rtol=1e-9)
    assert store == both[1].snapshot.title


def test_arrays_are_the_same(both: tuple[Database, Database]) -> None:
    run = sorted(both[0].snapshot.runs)[0]
    manifest = both[0].snapshot.runs[run].manifest
    for name, layers in manifest.arrays.items():
        arrays = [np.asarray(db.array(run, name, layers[-1])[:64]) for db in both]
        np.testing.assert_array_equal(*arrays)
    outputs = [db.expert_outputs(run, layer=2, where="position = 3") for db in both]
    assert len(outputs[0].values)
    np.testing.assert_array_equal(*(np.asarray(each.values) for each in outputs))


def test_macros_and_sql_answer_the_same(both: tuple[Database, Database]) -> None:
    for statement in (
        "from expert_frequency()",
        "select layer, expert, count(*) as n from routing group by all order by all limit 20",
        "select count(*) from tokens join routing using (run_id, token_idx)",
        "select * from runs order by run_id",
    ):
        local, remote = (db.sql(statement).fetchall() for db in both)
        assert local and remote == local


@pytest.fixture
def url(tmp_path: Path, bucket: Bucket) -> str:
    write_sample(tmp_path / "store", n_units=1)
    bucket.files.pipe_file(f"s3://{bucket.name}/some/other.csv", b"a\nsecret\n")
    bucket.files.pipe_file(f"s3://{bucket.name}/some/store/secret.csv", b"a\nsecret\n")
    return bucket.put(tmp_path / "store")


OUTSIDE = (
    "from read_csv('s3://{bucket}/some/other.csv')",
    "from read_csv('s3://{bucket}/some/store/secret.csv')",
    "from read_text('s3://{bucket}/some/store/moedb.json')",
    "from read_text('s3://{bucket}/some/store/runs/text-0123456789/run.json')",
    "from read_text('s3://{bucket}/some/store/runs/text-0123456789/tables/routing/../../run.json')",
    "from read_csv('s3://{bucket}/some/store/runs/text-0123456789/tables/x/../../../../secret.csv')",
    "from glob('s3://{bucket}/**')",
    "from read_text('s3://{bucket}/**')",
    "from 's3://{bucket}/some/other.csv'",
    "from read_csv('s3a://{bucket}/some/other.csv')",
    "from read_text('{bucket}/some/other.csv')",
    "from read_text('/etc/hostname')",
    "from read_text('file:///etc/hostname')",
    "from read_text('http://127.0.0.1:9/x')",
    "copy (select 1) to 's3://{bucket}/x.csv'",
    "attach 's3://{bucket}/x.db'",
    "install httpfs",
    "load httpfs",
    "set allowed_directories = ['s3://{bucket}']",
    "from duckdb_secrets()",
)


@pytest.mark.parametrize("statement", OUTSIDE)
def test_sql_reads_nothing_outside_the_tables(statement: str, url: str, bucket: Bucket) -> None:
    before = bucket.contents(f"s3://{bucket.name}")
    with moedb.open(url) as db:
        try:
            rows = db.sql(statement.format(bucket=bucket.name)).fetchall()
        except (SqlError, SqlRefusedError, MoedbError):
            rows = []
        assert "secret" not in str(rows) and "moedb" not in str(rows)
        assert rows == []
    assert bucket.contents(f"s3://{bucket.name}") == before
