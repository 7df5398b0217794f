"""A store on object storage is verified where it is, and what is said is what a folder's is."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli
from moedb.errors import FaultsError, StoreError
from moedb.store.layout import RunLayout
from moedb.store.reading.places.remote_store import RemoteStore
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification import run as verification
from moedb.store.verification.run import verify
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.servers.s3_buckets import Bucket
from tests.support.stores.golden import unpack
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def data_files(store: Path) -> list[Path]:
    folder = RunLayout(store, RUN_ID).folder
    found = [*(folder / "tables").rglob("*.parquet"), *folder.rglob("c/**/0")]
    return sorted(path for path in found if path.is_file())


def nothing(store: Path) -> None:
    """Leave it as it is."""


def change_files(store: Path) -> None:
    for path in random.Random(3).sample(data_files(store), 5):
        flip(path)


def lose_files(store: Path) -> None:
    gone, short, longer, changed = random.Random(4).sample(data_files(store), 4)
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-3])
    longer.write_bytes(longer.read_bytes() + b"x")
    flip(changed)


def change_metadata(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    path = layout.arrays / "router_logits" / "1" / "zarr.json"
    path.write_text(path.read_text() + " ")
    flip(data_files(store)[0])


def lose_metadata(store: Path) -> None:
    (RunLayout(store, RUN_ID).arrays / "router_logits" / "3" / "zarr.json").unlink()


def change_manifests(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    flip(layout.segment("000000"))
    flip(next((layout.tables / "routing").glob("000001-*")))


def change_the_head(store: Path) -> None:
    (head,) = RunLayout(store, RUN_ID).heads.iterdir()
    flip(head)


def leave_incomplete(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    for path in layout.heads.iterdir():
        path.unlink()
    layout.segment("final").unlink()
    layout.segment("000002").unlink()


def said_of(snapshot_of: Path | RemoteStore) -> list[str]:
    snapshot = take_snapshot(snapshot_of)
    said = []
    for run_id in sorted({**snapshot.runs, **snapshot.damaged}):
        try:
            said.append(str(verify(snapshot, run_id)))
        except FaultsError as error:
            said += [fault.message for fault in error.faults]
    return said


@pytest.mark.parametrize(
    "damage",
    [
        nothing,
        change_files,
        lose_files,
        change_metadata,
        lose_metadata,
        change_manifests,
        change_the_head,
        leave_incomplete,
    ],
)
def test_what_is_said_of_a_bucket_is_what_is_said_of_the_folder(
    damage: Damage, tmp_path: Path, bucket: Bucket
) -> None:
    store = tmp_path / "store"
    write_sample(store, n_units=3)
    damage(store)
    url = bucket.put(store)
    before = bucket.contents()
    expected = [line.replace(str(store), url) for line in said_of(store)]
    assert said_of(RemoteStore(url)) == expected
    assert all(line.startswith("sound") for line in expected) == (
        damage in (nothing, leave_incomplete)
    )
    assert bucket.contents() == before


@pytest.mark.parametrize("kind", ["format-1", "format-2", "compacted"])
def test_stores_of_other_kinds_are_sound(kind: str, tmp_path: Path, bucket: Bucket) -> None:
    if kind == "compacted":
        store = tmp_path / "store"
        write_sample(store, n_units=3)
        compact_run(store, RUN_ID)
    else:
        store = unpack(kind, tmp_path)
    found = said_of(RemoteStore(bucket.put(store)))
    assert found == said_of(store) and all(line.startswith("sound") for line in found)


def test_values_that_contradict_each_other_are_named(tmp_path: Path, bucket: Bucket) -> None:
    manifest = sample_manifest(n_units=1)
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin({})
    tables, arrays = unit_rows(manifest, 0)
    tables["examples"] = {**tables["examples"], "n_tokens": [4]}
    for key in arrays:
        if key.name == "expert_outputs":
            arrays[key][2, 1] *= -1
    writer.commit_unit(0, tables, arrays)
    writer.finish()
    found = said_of(RemoteStore(bucket.put(tmp_path / "store")))
    assert found == said_of(tmp_path / "store") and len(found) > 1


def test_the_command(tmp_path: Path, bucket: Bucket, capfd: pytest.CaptureFixture[str]) -> None:
    store, other = tmp_path / "store", "text-0199999999"
    write_sample(store, n_units=2)
    write_sample(store, n_units=2, run_id=other)
    (changed, *_) = data_files(store)
    flip(changed)
    url = bucket.put(store)
    assert run_cli(["verify", "--store", url]) == 3
    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert f"{RUN_ID}: damaged: " in first and second.startswith(f"{other}: sound: ")
    assert f"{url}/{changed.relative_to(store).as_posix()} is not what was committed" in first
    assert f"damaged: {RUN_ID}" in err and f"moedb copy DIR {url}" in err and "moedb rm" not in err
    assert run_cli(["verify", other[:9], "--store", url]) == 0
    assert capfd.readouterr().out.startswith(f"{other}: sound: ")


def test_progress_is_of_every_byte(tmp_path: Path, bucket: Bucket) -> None:
    write_sample(tmp_path / "store", n_units=3)
    files = data_files(tmp_path / "store")

    class Heard:
        begun: tuple[int, int] = (0, 0)
        n_bytes = 0

        def begin(self, n_files: int, n_bytes: int) -> None:
            self.begun = n_files, n_bytes

        def advance(self, n_bytes: int) -> None:
            self.n_bytes += n_bytes

    heard = Heard()
    snapshot = take_snapshot(RemoteStore(bucket.put(tmp_path / "store")))
    verify(snapshot, RUN_ID, heard)
    total = sum(path.stat().st_size for path in files)
    assert heard.begun == (len(files), total) and heard.n_bytes == total


@pytest.mark.parametrize("after", ["listing", "hashes", "tables"])
def test_a_server_that_fails_is_no_damage(
    after: str, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    write_sample(tmp_path / "store", n_units=2)
    snapshot = take_snapshot(RemoteStore(bucket.put(tmp_path / "store")))
    steps = {"hashes": "_faults_of_tables", "tables": "check_values"}
    if after == "listing":
        bucket.server.fail(fail=10_000)
    else:
        name = steps[after]
        whole = getattr(verification, name)

        def failing(*arguments: object) -> object:
            bucket.server.fail(fail=10_000)
            return whole(*arguments)

        monkeypatch.setattr(verification, name, failing)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        verify(snapshot, RUN_ID)
    assert not isinstance(caught.value, FaultsError)
    assert not re.search(r"damaged|committed", str(caught.value))
