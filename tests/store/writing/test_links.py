"""A store from a stranger: what in it leads elsewhere is neither read, written nor swept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.errors import StoreDamagedError, StoreError
from moedb.schemas.seals import seal
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.writing.removal import remove_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's, with names that could be a writer's."""
    folder = tmp_path / "outside"
    for name in ("thesis", "12-abcdef012345", "routing", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / "000000-abcdef01.parquet").write_text("precious")
    (folder / "letter.txt").write_text("precious")
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run all whose units are committed, but for its end."""
    write_sample(tmp_path / "store")
    layout = RunLayout(tmp_path / "store", RUN_ID)
    shutil.rmtree(layout.heads)
    layout.segment("final").unlink()
    shutil.rmtree(layout.tables / "runs")
    return tmp_path / "store"


def replaced(relative: str) -> Callable[[Path, Path], None]:
    def replace(run: Path, outside: Path) -> None:
        path = run / relative
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(outside, target_is_directory=True)

    return replace


LINKED = (
    ".staging",
    "tables",
    "tables/routing",
    "tables/predictions",
    "segments",
    "arrays.zarr",
    "arrays.zarr/router_logits",
    "arrays.zarr/router_logits/1",
    "arrays.zarr/router_logits/1/c",
    "arrays.zarr/router_logits/1/zarr.json",
    ".commit.lock",
    "run.json",
)


@pytest.mark.parametrize("relative", LINKED)
def test_a_writer_refuses_a_link_before_it_writes_or_sweeps(
    store: Path, outside: Path, relative: str
) -> None:
    replaced(relative)(RunLayout(store, RUN_ID).folder, outside)
    before = content_of(outside)
    with pytest.raises(StoreDamagedError, match="is a symbolic link to"):
        write_sample(store)
    assert content_of(outside) == before


@pytest.mark.parametrize("relative", (".staging", "tables", "tables/routing", "arrays.zarr"))
def test_a_link_that_comes_while_a_writer_is_at_work_is_refused(
    store: Path, outside: Path, relative: str
) -> None:
    writer = RunWriter(store, sample_manifest())
    replaced(relative)(writer.layout.folder, outside)
    before = content_of(outside)
    with pytest.raises(StoreError):
        writer.finish()
    assert content_of(outside) == before


def test_a_unit_is_not_moved_through_a_link(tmp_path: Path, outside: Path) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest())
    shards = writer.layout.arrays / "router_logits" / "1" / "c"
    shards.symlink_to(outside)
    before = content_of(outside)
    with pytest.raises(StoreDamagedError, match="is a symbolic link to"):
        writer.commit_unit(0, *unit_rows(writer.manifest, 0))
    assert content_of(outside) == before
    assert not writer.has_unit(0)


def test_a_run_and_the_folder_of_runs_may_be_no_links(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (store / "runs").rename(elsewhere)
    (store / "runs").mkdir()
    (store / "runs" / RUN_ID).symlink_to(elsewhere / RUN_ID)
    before = content_of(elsewhere)
    with pytest.raises(StoreDamagedError, match="is a symbolic link to"):
        write_sample(store)
    assert list(take_snapshot(store).damaged) == [RUN_ID]
    remove_run(store, RUN_ID)
    assert not os.path.lexists(store / "runs" / RUN_ID)
    assert content_of(elsewhere) == before

    (store / "runs").rmdir()
    (store / "runs").symlink_to(elsewhere)
    for act in (lambda: write_sample(store), lambda: remove_run(store, RUN_ID)):
        with pytest.raises(StoreDamagedError, match="is a symbolic link to"):
            act()
    with pytest.raises(StoreDamagedError, match="is a symbolic link to"):
        take_snapshot(store)
    assert content_of(elsewhere) == before


def test_the_store_itself_may_be_reached_by_a_link(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    write_sample(tmp_path / "link")
    assert take_snapshot(tmp_path / "link").runs[RUN_ID].is_complete
    assert take_snapshot(store).runs[RUN_ID].is_complete
    remove_run(tmp_path / "link", RUN_ID)
    assert not take_snapshot(store).runs


@pytest.mark.parametrize("relative", LINKED)
def test_deleting_a_run_deletes_its_links_and_not_what_they_lead_to(
    store: Path, outside: Path, relative: str
) -> None:
    replaced(relative)(RunLayout(store, RUN_ID).folder, outside)
    before = content_of(outside)
    remove_run(store, RUN_ID)
    assert content_of(outside) == before
    assert list((store / "runs").iterdir()) == []


def test_a_file_that_lies_outside_is_not_read(store: Path, outside: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    committed = take_snapshot(store).runs[RUN_ID].files("routing")[0]
    stolen = outside / "theirs.parquet"
    shutil.copy(committed, stolen)
    committed.unlink()
    committed.symlink_to(stolen)
    (wrong,) = take_snapshot(store).damaged.values()
    assert f"{committed} is a symbolic link to {str(stolen)!r}" in wrong.error.message

    committed.unlink()
    shutil.copy(stolen, committed)
    assert not take_snapshot(store).damaged
    for path in (f"tables/../../../../outside/{stolen.name}", str(stolen), "a\\..\\b", "a\0b"):
        manifest = layout.segment("000000")
        content = json.loads(manifest.read_text())
        content["tables"]["routing"][0]["path"] = path
        del content["seal"]
        manifest.write_text(seal(json.dumps(content, indent=1)))
        (wrong,) = take_snapshot(store).damaged.values()
        assert "000000.json: path: expected" in wrong.error.message


def test_what_would_never_end_is_not_read(store: Path) -> None:
    manifest = RunLayout(store, RUN_ID).segment("000000")
    manifest.unlink()
    os.mkfifo(manifest)
    (wrong,) = take_snapshot(store).damaged.values()
    assert f"{manifest} is a named pipe" in wrong.error.message


def test_only_names_that_a_writer_makes_are_swept(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    kept = [
        layout.tables / "routing" / "notes.parquet",
        layout.tables / "routing" / "000000-mine.parquet",
        layout.tables / "pictures" / "000000-abcdef01.parquet",
        layout.staging / "notes",
        store / "runs" / ".deleted-notes",
    ]
    swept = [
        layout.tables / "routing" / "000000-abcdef01.parquet",
        layout.staging / "12-abcdef012345",
        store / "runs" / ".deleted-text-0123456789-0123456789abcdef",
    ]
    for path in kept + swept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.suffix != ".parquet" else path.write_text("half")
    write_sample(store)
    assert [path for path in kept + swept if path.exists()] == kept
