"""Stores on object storage: what is read there is what a folder gives, and damage is told alike."""

import gc
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numcodecs.pickles
import numpy as np
import pyarrow as pa
import pytest

import moedb
from moedb.errors import StoreDamagedError, StoreError, StoreNotFoundError
from moedb.schemas.additions import Addition
from moedb.schemas.seals import seal
from moedb.store.arrays.stored import array_forms
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import additions_of
from moedb.store.reading.places.remote_store import LARGEST_MANIFEST
from moedb.store.writing.complete.additions import add
from moedb.store.writing.complete.compaction import compact_run
from tests.store.reading.test_damaged_runs import DAMAGE
from tests.support.servers.s3_buckets import Bucket
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, unfinish, write_sample

OLD, NEW = RUN_ID, "text-ffffffffff"


def same(store: Path, url: str) -> None:
    """Every table, every array and what is said of the runs are the same."""
    with moedb.open(store) as local, moedb.open(url) as remote:
        assert remote.snapshot.sha256 == local.snapshot.sha256
        assert remote.runs().fetchall() == local.runs().fetchall()
        for run in local.snapshot.runs.values():
            there = remote.snapshot.runs[run.run_id]
            assert (there.row, there.head, there.named) == (run.row, run.head, run.named)
            assert [*additions_of(there)] == [*additions_of(run)]
            for table in {table for s in run.segments.values() for table in s.tables}:
                asked = f"select * from {table} where run_id = $run order by all"
                expected = local.sql(asked, {"run": run.run_id}).fetchall()
                assert expected and remote.sql(asked, {"run": run.run_id}).fetchall() == expected
            for key in array_forms(run.manifest):
                arrays = [db.array(run.run_id, key.name, key.layer) for db in (local, remote)]
                np.testing.assert_array_equal(*(np.asarray(a[:]) for a in arrays))


def test_a_complete_run_is_read(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store")
    same(tmp_path / "store", bucket.put(tmp_path / "store"))


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_every_format_is_read(name: str, tmp_path: Path, bucket: Bucket) -> None:
    store = unpack(name, tmp_path)
    same(store, bucket.put(store))


def test_compacted_runs_additions_and_incomplete_runs_are_read(
    tmp_path: Path, bucket: Bucket
) -> None:
    store = tmp_path / "store"
    write_sample(store)
    compact_run(store, RUN_ID, timedelta(0))
    rows = pa.table({"token_idx": [3, 1], "key": ["x", "x"], "value": ["a", "b"]})
    add(store, RUN_ID, Addition("one", "concepts", "{}"), {"token_labels": [rows]})
    write_sample(store, run_id=NEW)
    unfinish(store, NEW, "000001")
    url = bucket.put(store)
    same(store, url)
    with moedb.open(url) as db:
        assert db.snapshot.runs[NEW].missing_units == [1]
        assert db.snapshot.runs[RUN_ID].head and db.snapshot.runs[RUN_ID].head.number == 2


def test_the_files_are_read_against_their_hashes(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=1)
    url = bucket.put(tmp_path / "store")
    with moedb.open(url) as db:
        (name,) = db.snapshot.file_names("routing")
        assert len(db.verified().sql("select * from routing").fetchall()) == 20
    content = bytearray(bucket.files.cat_file(name))
    content[8] ^= 1
    bucket.files.pipe_file(name, bytes(content))
    with moedb.open(url) as db, pytest.raises(StoreDamagedError, match="not what was committed"):
        db.verified().sql("select * from routing").fetchall()


REMOTE_DAMAGE = [
    name
    for name in DAMAGE
    if not name.startswith(("footer", "column", "no configuration"))
    and "is a folder" not in name
    and "are a file" not in name
]


@pytest.mark.parametrize("name", REMOTE_DAMAGE)
def test_damage_is_told_as_of_a_folder_with_the_address(
    name: str, tmp_path: Path, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """Footers are read when their table is."""
    store = tmp_path / "store"
    write_sample(store, n_units=2, run_id=OLD)
    write_sample(store, n_units=2, run_id=NEW)
    DAMAGE[name](RunLayout(store, NEW))
    url = bucket.put(store)
    caplog.set_level(logging.WARNING)
    with moedb.open(store) as db:
        expected = db.snapshot.damaged[NEW].error
        rows = db.query("expert-frequency", run=OLD).fetchall()
    with moedb.open(url) as db:
        found = db.snapshot.damaged[NEW].error
        assert found.message == expected.message.replace(str(store), url)
        assert url in str(found) and f"{url}/runs/{NEW}" in str(found.hint)
        assert db.query("expert-frequency").fetchall() == rows
        with pytest.raises(StoreDamagedError, match=f"run {NEW}: "):
            db.query("expert-frequency", run=NEW)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "moedb-manifests" not in said


def test_a_run_counts_when_its_configuration_is_there(tmp_path: Path, bucket: Bucket) -> None:
    """The files of one that is being copied are there before."""
    store = tmp_path / "store"
    write_sample(store, n_units=1, run_id=OLD)
    write_sample(store, n_units=1, run_id=NEW)
    RunLayout(store, NEW).manifest.unlink()
    with moedb.open(bucket.put(store)) as db:
        assert [*db.snapshot.runs] == [OLD] and not db.snapshot.damaged


def test_a_file_that_is_gone_since_is_told_of(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=1)
    url = bucket.put(tmp_path / "store")
    with moedb.open(url) as db:
        (name,) = db.snapshot.file_names("routing")
        bucket.files.rm_file(name)
        with pytest.raises(StoreError, match="is gone: the run was compacted or deleted"):
            db.sql("select * from routing").fetchall()


def test_arrays_that_are_missing_or_cut_short_are_damaged(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=1)
    url = bucket.put(tmp_path / "store")
    (shard, *_) = [
        path for path in bucket.contents() if "router_logits/1/" in path and "/c/" in path
    ]
    content = bucket.files.cat_file(f"{url}/{shard}")
    for changed, said in ((content[:-1], "committed were"), (None, "is missing")):
        if changed is None:
            bucket.files.rm_file(f"{url}/{shard}")
        else:
            bucket.files.pipe_file(f"{url}/{shard}", changed)
        with moedb.open(url) as db, pytest.raises(StoreDamagedError, match=said) as caught:
            db.array(RUN_ID, "router_logits", layer=1)
        assert f"{url}/{shard}" in str(caught.value)


def test_codecs_are_those_that_were_checked(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers otherwise when it is asked again has nothing decoded by its word."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    write_sample(tmp_path / "store", n_units=1)
    url = bucket.put(tmp_path / "store")
    with moedb.open(url) as db:
        expected = np.asarray(db.array(RUN_ID, "router_logits", layer=1)[:])
        place = f"{url}/runs/{RUN_ID}/arrays.zarr/router_logits/1"
        metadata = json.loads(bucket.files.cat_file(f"{place}/zarr.json"))
        metadata["codecs"] = [{"name": "numcodecs.pickle"}]
        bucket.files.pipe_file(f"{place}/zarr.json", json.dumps(metadata).encode())
        bucket.files.pipe_file(f"{place}/.zarray", b"{}")
        again = np.asarray(db.array(RUN_ID, "router_logits", layer=1)[:])
        np.testing.assert_array_equal(again, expected)
    with moedb.open(url) as db, pytest.raises(StoreDamagedError, match="not what the run was"):
        db.array(RUN_ID, "router_logits", layer=1)


def test_hostile_keys_are_passed_over(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=1)
    url = bucket.put(tmp_path / "store")
    run = f"{url}/runs/{RUN_ID}"
    configuration = bucket.files.cat_file(f"{run}/run.json")
    for key in (
        "runs/x",
        "runs/.hidden/run.json",
        "runs/a%2Fb/run.json",
        "runs/äö/run.json",
        "runs/-rf [x]/run.json",
        f"runs/{RUN_ID}/segments/../../evil.json",
        f"runs/{RUN_ID}/segments/deep/000001.json",
        f"runs/{RUN_ID}/segments/notes.json",
        f"runs/{RUN_ID}/heads/x.json",
        f"runs/{RUN_ID}/tables/routing/../../../../secret.parquet",
        f"runs/{RUN_ID}/run.json/run.json",
    ):
        bucket.files.pipe_file(f"{url}/{key}", b"{}")
    with moedb.open(url) as db:
        assert [*db.snapshot.runs] == [RUN_ID] and not db.snapshot.damaged
        assert len(db.sql("select * from routing").fetchall()) == 20
        folder = db.snapshot.store
        assert not list(folder.parent.glob("evil*"))
        inside = {path.relative_to(folder).parts[:2] for path in folder.rglob("*.json")}
        assert inside == {("moedb.json",), ("runs", RUN_ID)}
    del db
    gc.collect()
    assert not folder.exists()  # it goes with the store
    bucket.files.pipe_file(f"{url}/runs/{NEW}/run.json", configuration)
    with moedb.open(url) as db:
        assert "is of the run" in db.snapshot.damaged[NEW].error.message
        assert RUN_ID in db.snapshot.runs


def test_a_huge_manifest_is_not_fetched(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedb.store.reading.places import remote_store

    store = tmp_path / "store"
    write_sample(store, n_units=1, run_id=OLD)
    write_sample(store, n_units=1, run_id=NEW)
    assert LARGEST_MANIFEST > 1 << 20
    monkeypatch.setattr(remote_store, "LARGEST_MANIFEST", 1 << 20)
    with RunLayout(store, NEW).segment("000009").open("wb") as file:
        file.truncate((1 << 20) + 1)
    with bucket.server.counted() as requests, moedb.open(bucket.put(store)) as db:
        assert [*db.snapshot.runs] == [OLD]
        assert "has 1,048,577 bytes" in db.snapshot.damaged[NEW].error.message
    assert not [each for each in requests if each.startswith("GET") and "000009.json" in each]


def test_a_head_that_names_files_outside_is_damaged(tmp_path: Path, bucket: Bucket) -> None:
    store = tmp_path / "store"
    write_sample(store, n_units=1)
    layout = RunLayout(store, RUN_ID)
    segment = json.loads(layout.segment("000000").read_text())
    del segment["seal"]
    segment["tables"]["routing"][0]["path"] = "../../../other/x.parquet"
    layout.segment("000000").write_text(seal(json.dumps(segment, indent=1)))
    head = json.loads(layout.head(0).read_text())
    del head["seal"]
    for entry in head["segments"]:
        if entry["path"] == "segments/000000.json":
            content = layout.segment("000000").read_bytes()
            entry["sha256"] = hashlib.sha256(content).hexdigest()
    layout.head(0).write_text(seal(json.dumps(head, indent=1)))
    with moedb.open(bucket.put(store)) as db:
        assert "path inside the run" in db.snapshot.damaged[RUN_ID].error.message


def test_what_is_no_store_is_told(tmp_path: Path, bucket: Bucket) -> None:
    for url in (bucket.url, f"s3://{bucket.name}", "s3://no-such-bucket-at-all/x"):
        with pytest.raises(StoreNotFoundError, match=f"no moedb store at {url}") as caught:
            moedb.open(url)
        assert caught.value.exit_code == 3
    for content, said in ((b"{", "not valid JSON"), (b'{"format": "moedb", "major": 99}', "99")):
        bucket.files.pipe_file(f"{bucket.url}/moedb.json", content)
        with pytest.raises(StoreError, match=said) as caught:
            moedb.open(bucket.url)
        assert bucket.url in str(caught.value) and "moedb-manifests" not in str(caught.value)


def test_an_empty_store_holds_no_runs(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=1)
    shutil.rmtree(tmp_path / "store" / "runs")
    with moedb.open(bucket.put(tmp_path / "store")) as db:
        assert db.runs().fetchall() == []
        with pytest.raises(moedb.MoedbError, match="holds no runs") as caught:
            db.query("expert-frequency")
        assert bucket.url in str(caught.value)


Ask = Callable[[moedb.Database], object]


def test_opening_takes_few_requests_however_many_units_there_are(
    tmp_path: Path, bucket: Bucket
) -> None:
    """One for each manifest, many at a time, and one for each thousand files that are listed."""
    store = tmp_path / "store"
    write_sample(store, n_units=40)
    url = bucket.put(store)
    with bucket.server.counted() as requests:
        db = moedb.open(url)
    n_manifests = 1 + 1 + 1 + 42  # of the store, run.json, a head, 40 units with the first and last
    listings = [each for each in requests if "list-type=2" in each]
    assert len(requests) - len(listings) <= n_manifests + 1
    assert len(listings) <= 6
    assert not [each for each in requests if ".parquet" in each.partition("?")[0]]
    compact_run(store, RUN_ID, timedelta(0))
    with bucket.server.counted() as requests:
        db.sql("select count(*) from runs").fetchall()
    assert requests == []
    with bucket.server.counted() as requests:
        assert db.sql("select count(*) from routing").fetchall() == [(800,)]
    of_files = [each for each in requests if ".parquet" in each]
    assert len(of_files) <= 2 * 40 and all("/routing/" in each for each in of_files)
    db.close()
