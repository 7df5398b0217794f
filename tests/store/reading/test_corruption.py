"""One flipped bit, a swap, a copy, a deletion or an edit: each is found, and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli
from moedb.errors import StoreDamagedError, StoreError
from moedb.schemas.seals import seal
from moedb.store.arrays.stored import ArrayKey, open_array
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import Snapshot, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

OTHER, UNFINISHED = "text-ffffffffff", "text-aaaaaaaaaa"
STATES = ("complete", "incomplete", "compacted")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a run in each state, and another one."""
    store = tmp_path_factory.mktemp("whole") / "store"
    for run_id in (RUN_ID, OTHER):
        write_sample(store, n_units=2, run_id=run_id, arrays=("router_logits",))
    write_sample(store, n_units=2, run_id="text-cccccccccc", arrays=("router_logits",))
    compact_run(store, "text-cccccccccc")
    writer = RunWriter(
        store, sample_manifest(n_units=3, run_id=UNFINISHED, arrays=("router_logits",))
    )
    writer.begin({})
    for unit in (0, 1):
        writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    return store


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


RUNS = {"complete": RUN_ID, "incomplete": UNFINISHED, "compacted": "text-cccccccccc"}


def found_in(store: Path, run_id: str) -> str:
    """What is found to be wrong with a run, by reading it or else by verifying it."""
    snapshot = take_snapshot(store)
    assert not {*snapshot.damaged} - {run_id}
    for other in (run for name, run in snapshot.runs.items() if name != run_id):
        assert other.row["status"] == ("incomplete" if other.run_id == UNFINISHED else "complete")
    if run_id in snapshot.damaged:
        return snapshot.damaged[run_id].error.message
    return found_by_verifying(snapshot, run_id)


def found_by_verifying(snapshot: Snapshot, run_id: str) -> str:
    with pytest.raises(StoreDamagedError) as caught:
        verify_run(snapshot.runs[run_id])
    return caught.value.message


def files_that_count(store: Path, run_id: str) -> list[Path]:
    run = take_snapshot(store).runs[run_id]
    layout = run.layout
    return [
        layout.manifest,
        *([layout.head(run.head.number)] if run.head else []),
        *(layout.segment(unit) for unit in run.segments),
        *sorted(layout.arrays.rglob("zarr.json")),
        *(layout.folder / entry.path for entry in (*run.table_files(), *run.shards())),
    ]


def flipped(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("state", STATES)
def test_a_flipped_bit_is_found_wherever_it_is(store: Path, state: str) -> None:
    run_id = RUNS[state]
    for path in files_that_count(store, run_id):
        original = path.read_bytes()
        for n, position in enumerate((0, 3, len(original) // 3, len(original) // 2, -9, -2, -1)):
            flipped(path, position, n % 7)
            said = found_in(store, run_id)
            assert path.name in said or (path.name == "zarr.json" and "metadata in" in said), said
            path.write_bytes(original)
    verify_run(take_snapshot(store).runs[run_id])


@pytest.mark.parametrize("state", STATES)
def test_every_bit_of_every_manifest_counts(store: Path, state: str) -> None:
    layout = RunLayout(store, RUNS[state])
    for path in files_that_count(store, layout.run_id):
        if path.suffix != ".json" or path.name == "zarr.json":
            continue
        original = path.read_bytes()
        for position in range(0, len(original), 7):
            flipped(path, position, position % 8)
            with pytest.raises((StoreDamagedError, StoreError)):
                run = take_snapshot(store).run(layout.run_id)
                assert run.strays or run.head is None
                verify_run(run)
            path.write_bytes(original)


def test_every_shard_has_checksums_that_plain_zarr_checks(store: Path) -> None:
    """What no index and no compression notice, the checksum of each chunk does."""
    import numpy as np
    import zarr

    run = take_snapshot(store).runs[RUN_ID]
    array = open_array(run, ArrayKey("router_logits", 1))
    expected = np.asarray(array[:5])
    shard = run.layout.arrays / "router_logits/1/c/0/0"
    original = shard.read_bytes()
    seen = 0
    for position in range(0, len(original), 3):
        flipped(shard, position, position % 8)
        try:
            values = np.asarray(zarr.open(run.layout.arrays, mode="r")["router_logits/1"][:5])
        except Exception:
            seen += 1
        else:
            np.testing.assert_array_equal(values, expected)
        shard.write_bytes(original)
    assert seen


def edited(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Edit a manifest, and make its seal hold again."""
    content = json.loads(path.read_text())
    del content["seal"]
    change(content)
    path.write_text(seal(json.dumps(content, indent=1, sort_keys=True)))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["model", "dataset", "n_tokens"])
def test_an_edited_configuration_is_found(store: Path, state: str, name: str) -> None:
    def change(content: dict[str, object]) -> None:
        row = content["row"]
        assert isinstance(row, dict)
        row[name] = row[name] * 2

    edited(RunLayout(store, RUNS[state]).manifest, change)
    assert "run.json" in found_in(store, RUNS[state])


@pytest.mark.parametrize("state", STATES)
def test_a_run_whose_configuration_is_deleted_is_damaged(store: Path, state: str) -> None:
    RunLayout(store, RUNS[state]).manifest.unlink()
    assert "run.json is missing" in found_in(store, RUNS[state])


@pytest.mark.parametrize("state", STATES[:2])
def test_swapped_manifests_are_found(store: Path, state: str) -> None:
    layout = RunLayout(store, RUNS[state])
    one, two = (layout.segment(unit).read_text() for unit in ("000000", "000001"))
    layout.segment("000000").write_text(two)
    layout.segment("000001").write_text(one)
    assert "00000" in found_in(store, RUNS[state])


@pytest.mark.parametrize("state", STATES[:2])
def test_a_manifest_of_another_run_is_found(store: Path, state: str) -> None:
    layout = RunLayout(store, RUNS[state])
    shutil.copy(RunLayout(store, OTHER).segment("000001"), layout.segment("000001"))
    assert "000001.json" in found_in(store, RUNS[state])


@pytest.mark.parametrize("state", STATES)
def test_a_copy_beside_doubles_nothing(
    store: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = take_snapshot(store).runs[RUNS[state]]
    path = run.layout.segment(sorted(run.segments)[0])
    copy = path.with_name(f"{path.stem} (copy).json")
    shutil.copy(path, copy)
    again = take_snapshot(store).runs[RUNS[state]]
    assert again.files("routing") == run.files("routing")
    assert str(copy) in caplog.text
    assert str(copy) in found_in(store, RUNS[state])


def test_a_unit_that_is_not_planned_is_not_read(store: Path) -> None:
    layout = RunLayout(store, UNFINISHED)
    text = layout.segment("000001").read_text()

    def renamed(content: dict[str, object]) -> None:
        content["unit"], content["path"] = "000007", "segments/000007.json"

    layout.segment("000007").write_text(text)
    edited(layout.segment("000007"), renamed)
    assert take_snapshot(store).runs[UNFINISHED].n_rows("routing") == 40
    assert "000007.json" in found_in(store, UNFINISHED)


@pytest.mark.parametrize("state", STATES)
def test_a_deleted_manifest_is_found_in_a_complete_run(store: Path, state: str) -> None:
    run = take_snapshot(store).runs[RUNS[state]]
    gone = run.layout.segment(sorted(run.segments)[0])
    gone.unlink()
    if run.is_complete:
        assert f"{gone.name} is missing" in found_in(store, RUNS[state])
    else:  # that unit is captured again
        assert take_snapshot(store).runs[UNFINISHED].missing_units == [0, 2]


@pytest.mark.parametrize("state", STATES)
def test_a_count_of_rows_that_is_not_the_files_is_found(store: Path, state: str) -> None:
    run = take_snapshot(store).runs[RUNS[state]]
    unit = sorted(run.segments)[0]
    path = run.layout.segment(unit)

    def change(content: dict[str, object]) -> None:
        tables = content["tables"]
        assert isinstance(tables, dict)
        tables["routing"][0]["n_rows"] = 10**9

    edited(path, change)
    if run.head is not None:
        import hashlib

        text = path.read_bytes()

        def follow(content: dict[str, object]) -> None:
            entries = content["segments"]
            assert isinstance(entries, list)
            (entry,) = (e for e in entries if e["path"].endswith(path.name))
            entry["sha256"], entry["n_bytes"] = hashlib.sha256(text).hexdigest(), len(text)

        edited(run.layout.head(run.head.number), follow)
    said = found_by_verifying(take_snapshot(store), RUNS[state])
    assert f"unit {unit}: " in said and "1,000,000,000" in said


def test_of_several_heads_the_newest_whole_one_counts(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = RUNS["compacted"]
    run = take_snapshot(store).runs[run_id]
    assert run.head is not None and run.head.number == 1
    flipped(run.layout.head(1), 30, 0)
    older = take_snapshot(store).runs[run_id]
    assert older.head is not None and older.head.number == 0
    assert older.n_rows("routing") == run.n_rows("routing")
    assert "an older head counts" in caplog.text
    # and nobody sweeps what the broken one names
    files = set(run.layout.folder.rglob("*.parquet"))
    write_sample(store, n_units=2, run_id=run_id, arrays=("router_logits",))
    assert set(run.layout.folder.rglob("*.parquet")) == files
    assert "000001.json" in found_in(store, run_id)


def test_verification_names_file_and_unit_and_goes_on(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = take_snapshot(store).runs[RUN_ID].files("routing")[1]
    flipped(table, 40, 3)
    shard = next(path for path in RunLayout(store, OTHER).arrays.rglob("c/1/0"))
    flipped(shard, 5, 5)
    assert run_cli(["verify", "--store", str(store)]) == 3
    out, _ = capfd.readouterr()
    lines = {line.split(":")[0].split()[0]: line for line in out.splitlines()}
    assert f"unit 000001: {table} is not what was committed" in lines[RUN_ID]
    assert f"unit 000001: {shard} is not what was committed" in lines[OTHER]
    assert "sound" in lines[UNFINISHED] and "sound" in lines[RUNS["compacted"]]
