"""Names and notes of runs: given, changed, refused, broken, and valid wherever a run is."""

from pathlib import Path

import pytest

import moedb
from moedb.errors import RunNotFoundError, StoreError, UsageError
from moedb.schemas.run_names import RunName
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.naming import name_run
from moedb.store.writing.removal import remove_run
from tests.support.stores.samples import RUN_ID, write_sample

OTHER = "text-ffffffffff"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    write_sample(folder, n_units=2, arrays=())
    write_sample(folder, run_id=OTHER, n_units=2, arrays=())
    return folder


def test_a_name_stands_for_the_run_everywhere(store: Path) -> None:
    name_run(store, RUN_ID, RunName("first-try", "numbers 1, 2 and 3"))
    snapshot = take_snapshot(store)
    assert snapshot.run("first-try").run_id == snapshot.run("first").run_id == RUN_ID
    assert snapshot.runs[RUN_ID].title == f"first-try ({RUN_ID})"
    with moedb.open(store) as db:
        by_name = db.query("expert-frequency", run="first-try")
        assert by_name.fetchall() == db.query("expert-frequency", run=RUN_ID).fetchall()
        assert f"run first-try ({RUN_ID})" in by_name.provenance.footer()
        macro = db.sql("select * from expert_frequency(run := 'first-try') order by all")
        assert sorted(macro.fetchall()) == sorted(by_name.fetchall())
        labels = db.sql("select run_id, key, value from run_labels order by key").fetchall()
        assert labels == [
            (RUN_ID, "name", "first-try"),
            (RUN_ID, "note", "numbers 1, 2 and 3"),
        ]


def test_a_name_is_changed_and_a_note_added(store: Path) -> None:
    name_run(store, RUN_ID, RunName("a"))
    name_run(store, RUN_ID, RunName(note="noted"))
    assert take_snapshot(store).runs[RUN_ID].named == RunName("a", "noted")
    name_run(store, RUN_ID, RunName("b"))
    assert take_snapshot(store).runs[RUN_ID].named == RunName("b", "noted")
    with pytest.raises(RunNotFoundError, match="no run named 'a'"):
        take_snapshot(store).run("a")


def test_nothing_that_was_captured_changes(store: Path) -> None:
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    hashed = take_snapshot(store).sha256
    name_run(store, RUN_ID, RunName("x", "y"))
    after = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {
        RunLayout(store, RUN_ID).name
    }
    assert take_snapshot(store).sha256 == hashed
    verify_run(take_snapshot(store).runs[RUN_ID])


def test_a_compaction_keeps_the_name(store: Path) -> None:
    name_run(store, RUN_ID, RunName("kept"))
    assert compact_run(store, RUN_ID) is not None
    assert take_snapshot(store).run("kept").run_id == RUN_ID


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "../x", "a\nb", "x" * 65, "a\0", "a'b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="cannot be called"):
        RunName(name)


@pytest.mark.parametrize("note", ["", "  ", "a\0b", "x" * 2001, "\ud800"])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(StoreError, match="a note is a text"):
        RunName(note=note)


def test_a_name_is_of_one_run(store: Path) -> None:
    name_run(store, RUN_ID, RunName("mine"))
    with pytest.raises(UsageError, match=f"'mine' is taken: run {RUN_ID} is called so"):
        name_run(store, OTHER, RunName("mine"))
    for begun in ("text", OTHER):
        with pytest.raises(UsageError, match=r"what run .* is stored as begins so"):
            name_run(store, RUN_ID, RunName(begun))
    name_run(store, RUN_ID, RunName("mine"))  # its own


def test_two_runs_that_came_to_be_called_alike_are_told_apart_by_what_they_are_stored_as(
    store: Path,
) -> None:
    name_run(store, RUN_ID, RunName("twice"))
    RunLayout(store, OTHER).name.write_bytes(RunLayout(store, RUN_ID).name.read_bytes())
    snapshot = take_snapshot(store)
    with pytest.raises(RunNotFoundError, match="'twice' is the name of several runs"):
        snapshot.run("twice")
    assert snapshot.run(OTHER).run_id == OTHER
    with pytest.raises(RunNotFoundError, match="'twice' is the name of"):
        remove_run(store, "twice")


def test_a_changed_bit_in_a_name_is_seen_and_naming_again_mends_it(store: Path) -> None:
    name_run(store, RUN_ID, RunName("whole"))
    place = RunLayout(store, RUN_ID).name
    place.write_text(place.read_text().replace("whole", "whale"))
    snapshot = take_snapshot(store)
    assert "its seal is broken" in snapshot.damaged[RUN_ID].error.message
    assert snapshot.damaged[RUN_ID].error.hint == (
        f"remove that file, and name the run again: moedb name {RUN_ID}"
    )
    place.unlink()
    name_run(store, RUN_ID, RunName("anew"))
    assert take_snapshot(store).run("anew").run_id == RUN_ID


def test_a_link_in_the_place_of_a_name_is_not_followed(store: Path, tmp_path: Path) -> None:
    name_run(store, OTHER, RunName("real"))
    target = tmp_path / "elsewhere.json"
    target.write_bytes(RunLayout(store, OTHER).name.read_bytes())
    RunLayout(store, RUN_ID).name.symlink_to(target)
    assert RUN_ID in take_snapshot(store).damaged
    assert target.exists()


def test_a_run_is_removed_by_its_whole_name_only(store: Path) -> None:
    name_run(store, RUN_ID, RunName("whole-name"))
    with pytest.raises(RunNotFoundError, match="takes its whole name"):
        remove_run(store, "whole")
    remove_run(store, "whole-name")
    assert list(take_snapshot(store).runs) == [OTHER]
