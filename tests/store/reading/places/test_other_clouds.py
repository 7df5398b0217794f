"""Stores on Microsoft's and Google's object storage, and on the hub of Hugging Face."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreDamagedError, StoreNotFoundError
from moedb.store.copying.mirror import Mirror
from moedb.store.copying.remote_target import create
from moedb.store.reading.places.file_systems import file_system
from tests.store.copying.places import counting_files
from tests.support.models.hub_server import Repository, run_moedb, running_hub
from tests.support.servers import other_clouds
from tests.support.stores.samples import RUN_ID, write_sample

_SERVERS = {"microsoft": ("az", "abfs"), "google": ("gs", "gcs")}
"""The schemes that each server is reached by."""


@pytest.fixture(scope="module", params=_SERVERS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A server, and a bucket there: file systems are kept by what they are asked for."""
    folder = tmp_path_factory.mktemp(request.param)
    running = getattr(other_clouds, request.param)
    with pytest.MonkeyPatch.context() as patch, running(patch, folder) as bucket:
        yield request.param, bucket


@pytest.fixture(params=[0, 1])
def url(request: pytest.FixtureRequest, place: tuple[str, str]) -> str:
    """The address of a store that is not there yet."""
    server, bucket = place
    return f"{_SERVERS[server][request.param]}://{bucket}/{secrets.token_hex(6)}/store"


def test_a_store_goes_there_is_read_and_comes_back(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, back = tmp_path / "store", tmp_path / "back"
    write_sample(store, n_units=3)
    assert [copied.state for copied in moedb.copy(store, url)] == ["copied"]
    assert [copied.state for copied in moedb.copy(store, url)] == ["same"]
    with moedb.open(store) as local, moedb.open(url) as remote:
        assert remote.snapshot.sha256 == local.snapshot.sha256
        for table in ("examples", "tokens", "routing", "router_stats"):
            rows = [db.sql(f"from {table} order by all").fetchall() for db in (local, remote)]
            assert rows[0] == rows[1] and rows[0]
        arrays = [db.array(RUN_ID, "expert_outputs", layer=3)[:] for db in (local, remote)]
        np.testing.assert_array_equal(*arrays)
        with pytest.raises(moedb.MoedbError, match="outside the store"):
            remote.sql(f"from read_text('{url}/moedb.json')").fetchall()
    assert run_cli(["verify", "--store", url]) == 0
    assert capfd.readouterr().out.startswith(f"{RUN_ID}: sound: ")
    moedb.copy(url, back)
    assert counting_files(back, RUN_ID) == counting_files(store, RUN_ID)


def test_who_is_first_wins(url: str) -> None:
    files, place = file_system(url), f"{url}/runs/x/head.json"
    assert create(files, place, b"one")
    assert not create(files, place, b"two") and create(files, place, b"one")
    assert files.cat_file(place) == b"one"


def test_damage_is_found(url: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_sample(store, n_units=2)
    moedb.copy(store, url)
    files = file_system(url)
    (place, *_) = files.glob(f"{url}/runs/{RUN_ID}/tables/routing/*")
    content = bytearray(files.cat_file(place))
    content[9] ^= 1
    files.pipe_file(place, bytes(content))
    with moedb.open(url) as db, pytest.raises(StoreDamagedError, match="not what was committed"):
        db.verified().sql("from routing").fetchall()
    assert run_cli(["verify", "--store", url]) == 3
    files.rm(place)
    with moedb.open(url) as db:
        assert list(db.snapshot.damaged) == [RUN_ID]


def test_a_mirror_is_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=url):
        moedb.open(url)
    with Mirror(tmp_path / "store", RUN_ID, url) as mirror:
        write_sample(tmp_path / "store", n_units=2)
    assert mirror.problem is None, mirror.problem
    with moedb.open(url) as db:
        assert db.snapshot.run(RUN_ID).is_complete


def test_a_store_on_the_hub_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    write_sample(store, n_units=2)
    files = {
        f"moe/{path.relative_to(store).as_posix()}": path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != ".commit.lock"
    }
    asked = (
        ["sql", "select * from routing order by all", "--format", "csv"],
        ["query", "expert-frequency", "--format", "csv"],
        ["verify"],
    )
    with running_hub() as hub:
        hub.datasets["me/routing"] = Repository(files)
        url = "hf://datasets/me/routing/moe"
        found = run_moedb(hub, tmp_path / "home", *([*each, "--store", url] for each in asked))
        broken = dict(files)
        (name,) = [name for name in files if "/routing/000001" in name]
        broken[name] = files[name][:9] + bytes([files[name][9] ^ 1]) + files[name][10:]
        hub.datasets["me/broken"] = Repository(broken)
        (damaged,) = run_moedb(
            hub, tmp_path / "home", ["verify", "--store", "hf://datasets/me/broken/moe"]
        )
    for arguments, done in zip(asked, found, strict=True):
        capfd.readouterr()
        assert run_cli([*arguments, "--store", str(store)]) == done.code == 0, done.err
        assert done.out.splitlines() == capfd.readouterr().out.splitlines()
    assert damaged.code == 3 and f"hf://datasets/me/broken/{name}" in damaged.out
