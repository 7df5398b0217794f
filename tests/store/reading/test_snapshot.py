"""Reading: what is committed and nothing else, and damage is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moedb.errors import (
    RunNotFoundError,
    StoreDamagedError,
    StoreNotFoundError,
    StoreVersionError,
)
from moedb.schemas.manifests import StoreManifest
from moedb.schemas.seals import seal
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store")
    return tmp_path / "store"


def resealed(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest that says something else, with a seal that holds."""
    content.pop("seal", None)
    path.write_text(seal(json.dumps(content, indent=1)))


def incomplete(store: Path) -> None:
    """Let the manifests of the units count, not their hashes."""
    shutil.rmtree(RunLayout(store, RUN_ID).heads)


def test_a_missing_store_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="does not exist") as caught:
        take_snapshot(tmp_path / "nowhere")
    assert "moedb capture qwen-ioi" in str(caught.value)
    assert caught.value.exit_code == 3
    with pytest.raises(FileNotFoundError, match="is not a moedb store"):
        take_snapshot(tmp_path)


def test_a_newer_major_version_is_refused_and_a_newer_minor_read(store: Path) -> None:
    (store / "moedb.json").write_text(StoreManifest(minor=9).to_json())
    assert list(take_snapshot(store).runs) == [RUN_ID]
    (store / "moedb.json").write_text(StoreManifest(major=3, minor=0).to_json())
    with pytest.raises(StoreVersionError, match=r"format 3\.0; this moedb reads up to 2\.x"):
        take_snapshot(store)


def test_a_newer_minor_version_may_add_fields(store: Path) -> None:
    def add(path: Path) -> None:
        content = json.loads(path.read_text())
        content["added_later"] = 1
        content["tables"]["routing"][0]["added_later"] = 2
        content["shards"][0]["added_later"] = 3
        resealed(path, content)

    writer = RunWriter(store, sample_manifest(run_id="text-0199999999"))
    writer.begin({})
    for unit in range(3):
        writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    add(writer.layout.segment("000000"))
    assert take_snapshot(store).runs["text-0199999999"].n_rows("routing") == 60
    writer.finish()
    head = json.loads(writer.layout.head(0).read_text())
    head["segments"][0]["added_later"] = head["added_later"] = 4
    resealed(writer.layout.head(0), head)
    assert take_snapshot(store).runs["text-0199999999"].is_complete


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "is not valid JSON"),
        ("run.json", "[]", "expected dict"),
        ("run.json", "{}", "has no seal"),
        ("run.json", '{"job": 1}', "is not a RunManifest"),
        ("segments/000001.json", '{"unit": 1}', "is not a SegmentManifest"),
        ("segments/000001.json", "\x00\x01", "is not valid JSON"),
    ],
)
def test_a_damaged_manifest_is_named(store: Path, name: str, text: str, message: str) -> None:
    incomplete(store)
    sealed = text if "\x00" in text or len(text) < 3 else seal(f"{{\n{text[1:-1]}\n}}")
    (RunLayout(store, RUN_ID).folder / name).write_text(sealed)
    with pytest.raises(StoreDamagedError, match=message) as caught:
        read_run(store, RUN_ID)
    assert name.split("/")[-1] in str(caught.value)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "tables/../../x", ""])
def test_a_manifest_cannot_point_outside_its_run(store: Path, path: str) -> None:
    incomplete(store)
    manifest = RunLayout(store, RUN_ID).segment("000000")
    content = json.loads(manifest.read_text())
    content["tables"]["routing"][0]["path"] = path
    resealed(manifest, content)
    with pytest.raises(StoreDamagedError, match="expected a path inside the run"):
        read_run(store, RUN_ID)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("path", 3, "path: expected str"),
        ("path", "a|/b|..|c", None),
        ("path", "a|/b/../c", "expected a path inside the run"),
        ("n_bytes", -1, "n_bytes: expected 0 or more"),
        ("n_bytes", True, "n_bytes: expected int"),
        ("n_rows", 1.5, "n_rows: expected int"),
        ("sha256", "ab", "sha256: expected 64 digits"),
        ("significant_bits", [8], "significant_bits: expected dict"),
    ],
)
def test_each_entry_of_a_manifest_is_checked(
    store: Path, field: str, value: object, message: str | None
) -> None:
    incomplete(store)
    manifest = RunLayout(store, RUN_ID).segment("000000")
    content = json.loads(manifest.read_text())
    content["tables"]["routing"][0][field] = value
    resealed(manifest, content)
    # a name that is only unusual is looked for
    with pytest.raises(StoreDamagedError, match=message or "is missing"):
        read_run(store, RUN_ID)


def test_a_changed_end_of_a_line_is_a_change(store: Path) -> None:
    for path in (RunLayout(store, RUN_ID).manifest, RunLayout(store, RUN_ID).segment("000000")):
        written = path.read_bytes()
        path.write_bytes(written.replace(b"\n", b"\r\n", 1))
        with pytest.raises(StoreDamagedError, match=path.name):
            read_run(store, RUN_ID)
        path.write_bytes(written)


def test_a_missing_or_short_file_is_named(store: Path) -> None:
    file = take_snapshot(store).runs[RUN_ID].files("tokens")[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(StoreDamagedError, match=f"{len(whole) - 1} bytes, committed were"):
        read_run(store, RUN_ID)
    file.unlink()
    with pytest.raises(StoreDamagedError, match=f"{file.name} is missing"):
        read_run(store, RUN_ID)


def test_a_run_is_found_by_the_beginning_of_its_name(store: Path) -> None:
    write_sample(store, run_id="text-0199999999")
    snapshot = take_snapshot(store)
    assert snapshot.run("text-012").run_id == RUN_ID
    with pytest.raises(RunNotFoundError, match="beginning of several"):
        snapshot.run("text-01")
    with pytest.raises(RunNotFoundError, match=f"did you mean {RUN_ID}"):
        snapshot.run("text-0123456798")


def test_the_snapshot_hash_follows_what_is_committed(store: Path) -> None:
    before = take_snapshot(store).sha256
    assert take_snapshot(store).sha256 == before
    write_sample(store, run_id="text-0199999999")
    assert take_snapshot(store).sha256 != before


def test_verification_finds_a_flipped_bit(store: Path) -> None:
    run = take_snapshot(store).runs[RUN_ID]
    assert verify_run(run).n_layers_summed == 2
    shard = run.layout.folder / run.segments["000001"].shards[0].path
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreDamagedError, match="is not what was committed"):
        verify_run(run)
