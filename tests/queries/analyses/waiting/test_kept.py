"""Answers of long analyses that are kept: when, for which runs, and what a broken file does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import moedb
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.analyses.waiting import kept
from moedb.queries.analyses.waiting.progress import each_part, shown_by
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

OVERLAP = ANALYSES["output-overlap"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(kept.FOLDER, str(folder))
    return folder


def answers(store: Path, **parameters: object) -> list[tuple[object, ...]]:
    """What the analysis says, in a database of its own."""
    with moedb.open(store) as db:
        return db.query("output-overlap", run=RUN_ID, **parameters).fetchall()


def n_computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time that the analysis reads an array, from now on."""
    read: list[str] = []
    array = moedb.Database.array

    def counted(self: moedb.Database, run: str | None, name: str, layer: int) -> object:
        read.append(name)
        return array(self, run, name, layer)

    monkeypatch.setattr(moedb.Database, "array", counted)
    return read


def test_an_answer_is_computed_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    write_sample(store)
    read = n_computed(monkeypatch)
    first = answers(store)
    n_read = len(read)
    assert n_read > 0 and len(list(folder.iterdir())) == 1
    assert answers(store) == first
    assert len(read) == n_read
    # other values, other answers
    assert answers(store, max_tokens=3) != first
    assert len(read) > n_read and len(list(folder.iterdir())) == 2


def test_a_run_of_other_content_is_another(tmp_path: Path, folder: Path) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    write_sample(store)
    write_sample(other, n_units=2)
    assert answers(store) != answers(other)
    assert len(list(folder.iterdir())) == 2
    before = answers(store)
    compact_run(store, RUN_ID)
    assert answers(store) == before


def test_of_an_incomplete_run_nothing_is_kept(tmp_path: Path, folder: Path) -> None:
    manifest = sample_manifest()
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin({})
    tables, arrays = unit_rows(manifest, 0)
    writer.commit_unit(0, with_router_mass(tables), arrays)
    assert answers(tmp_path / "store")
    assert not folder.exists()


@pytest.mark.parametrize(
    "broken", ["", "{", "[]", '{"rows": 3}', "null", '{"rows": [[1]], "sha256": "0", "sql": ""}']
)
def test_a_broken_file_is_computed_anew(tmp_path: Path, folder: Path, broken: str) -> None:
    store = tmp_path / "store"
    write_sample(store)
    first = answers(store)
    (place,) = folder.iterdir()
    whole = place.read_text()
    place.write_text(broken)
    assert answers(store) == first
    assert place.read_text() == whole
    # a number that was changed is not taken
    content = json.loads(whole)
    content["rows"][0][-1] += 1.0
    place.write_text(json.dumps(content))
    assert answers(store) == first


def test_verified_data_are_read(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    write_sample(store)
    answers(store)
    read = n_computed(monkeypatch)
    with moedb.open(store) as db:
        db.verified(()).query("output-overlap", run=RUN_ID).fetchall()
    assert read


def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = tmp_path / "store", tmp_path / "file"
    write_sample(store)
    file.write_text("in the way")
    monkeypatch.setenv(kept.FOLDER, str(file / "folder"))
    assert answers(store)
    monkeypatch.setenv(kept.FOLDER, "")
    assert kept.cache_folder() is None
    assert answers(store)


def test_the_oldest_are_forgotten(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    write_sample(store)
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    for n in (1, 2, 3, 4):
        answers(store, max_tokens=n)
    assert len(list(folder.iterdir())) == 2


def test_parts_are_shown_as_they_are_done() -> None:
    class Shown:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def __call__(self, what: str, n: int) -> "Shown":
            self.lines.append(f"{n} {what}")
            return self

        def __enter__(self) -> Iterator[None]:
            return lambda: self.lines.append("done")  # type: ignore[return-value]

        def __exit__(self, *_: object) -> None:
            self.lines.append("end")

    shown = Shown()
    assert list(each_part([1, 2], "layers")) == [1, 2]
    assert shown.lines == []
    with shown_by(shown):  # type: ignore[arg-type]
        for part in each_part([1, 2], "layers"):
            shown.lines.append(f"at {part}")
    assert shown.lines == ["2 layers", "at 1", "done", "at 2", "done", "end"]
