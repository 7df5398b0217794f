"""What a manifest vouches for was synced before it, the folders on the way too."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import RUN_ID, sample_manifest, write_sample

Key = tuple[int, int]


class Syncs:
    """Which files and folders were synced since they last changed."""

    def __init__(self) -> None:
        self._synced: set[Key] = set()

    @staticmethod
    def _key(status: os.stat_result) -> Key:
        return status.st_ino, status.st_mtime_ns

    def fsync(self, function: Callable[[int], None]) -> Callable[[int], None]:
        def synced(descriptor: int) -> None:
            self._synced.add(self._key(os.fstat(descriptor)))
            function(descriptor)

        return synced

    def missing(self, paths: set[Path]) -> list[Path]:
        return sorted(path for path in paths if self._key(path.lstat()) not in self._synced)


def needed(store: Path) -> set[Path]:
    """Everything in the store but what need not last: what is being staged, and the lock.

    The run's own folder changes with those, so that its time says nothing.
    """
    run = store / "runs" / RUN_ID
    inside = {
        path
        for path in run.rglob("*")
        if ".staging" not in path.parts and path.name != ".commit.lock"
    }
    return {store, store / "moedb.json", store / "runs", *inside}


def test_everything_is_synced_before_the_manifest_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs, unsynced = Syncs(), {}
    monkeypatch.setattr(os, "fsync", syncs.fsync(os.fsync))
    link = os.link

    def watched(source: Any, target: Any, **named: Any) -> None:
        if Path(target).parent.name in ("segments", "heads"):
            own = {Path(source), Path(target).parent}
            missing = syncs.missing(needed(tmp_path / "store") - own)
            name = f"{Path(target).parent.name}/{Path(target).name}"
            unsynced[name] = [str(path.relative_to(tmp_path)) for path in missing]
        link(source, target, **named)

    monkeypatch.setattr(os, "link", watched)
    write_sample(tmp_path / "store")
    units = ("first", "000000", "000001", "000002", "final")
    assert unsynced == {
        **{f"segments/{unit}.json": [] for unit in units},
        "heads/000000.json": [],
    }
    assert len([path for path in needed(tmp_path / "store") if path.name == "zarr.json"]) == 7
    folder = tmp_path / "store" / "runs" / RUN_ID
    assert syncs.missing({folder / "segments", folder / "heads"}) == []


def test_arrays_that_are_completed_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path / "store", sample_manifest())
    folder = writer.layout.arrays / "expert_outputs" / "3"
    (folder / "zarr.json").unlink()
    syncs = Syncs()
    monkeypatch.setattr(os, "fsync", syncs.fsync(os.fsync))
    RunWriter(tmp_path / "store", sample_manifest())
    assert syncs.missing({folder, folder / "zarr.json"}) == []
