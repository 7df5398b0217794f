"""Everything that is wrong with a run is named, not the first thing alone."""

import random
import re
import shutil
from pathlib import Path

import pytest

from moedb.cli import run_cli
from moedb.errors import FaultsError
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample

OTHER = "text-0199999999"
UNITS = 4


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for run_id in (RUN_ID, OTHER):
        write_sample(tmp_path / "store", n_units=UNITS, run_id=run_id, arrays=("router_logits",))
    return tmp_path / "store"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def units_of(folder: Path) -> dict[Path, str]:
    """The files of a run that hold data, each with its unit, by the names on the disk."""
    tables = {path: path.name.rpartition("-")[0] for path in (folder / "tables").rglob("*.parquet")}
    shards = {path: f"{int(path.parent.name):06d}" for path in folder.rglob("c/*/0")}
    assert len(shards) == 2 * UNITS
    return {**tables, **shards}


def named_in(text: str) -> set[tuple[str, str]]:
    """The units and files that lines of messages name."""
    return set(re.findall(r"unit (\w+): (?:the committed file )?(\S+) (?:is|has)", text))


@pytest.mark.parametrize("seed", range(4))
def test_every_file_that_was_changed_is_named_and_no_other(
    store: Path, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    chosen = random.Random(seed)
    expected = set()
    for run_id in (RUN_ID, OTHER):
        units = units_of(RunLayout(store, run_id).folder)
        for path in chosen.sample(sorted(units), chosen.randint(2, len(units))):
            flip(path)
            expected.add((units[path], str(path)))
    assert run_cli(["verify", "--store", str(store)]) == 3
    out, err = capfd.readouterr()
    assert named_in(out) == expected and len(out.splitlines()) == len(expected)
    assert f"damaged: {RUN_ID}, {OTHER}" in err


def test_one_flipped_bit_in_two_files_of_two_units(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        next((RunLayout(store, RUN_ID).tables / table).glob(f"{unit}-*"))
        for table, unit in (("routing", "000000"), ("tokens", "000002"))
    )
    flip(first)
    flip(second)
    assert run_cli(["verify", RUN_ID, "--store", str(store)]) == 3
    out, err = capfd.readouterr()
    assert out == "" and "moedb rm" in err
    assert named_in(err) == {("000000", str(first)), ("000002", str(second))}
    assert run_cli(["verify", "--store", str(store)]) == 3
    out, _ = capfd.readouterr()
    assert sum(line.startswith(f"{RUN_ID}: damaged: ") for line in out.splitlines()) == 2
    assert sum(line.startswith(f"{OTHER}: sound: ") for line in out.splitlines()) == 1


def test_a_run_that_cannot_be_opened_is_read_as_far_as_it_can_be(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    gone, short, changed, linked = (
        next((layout.tables / "tokens").glob(f"00000{unit}-*")) for unit in range(UNITS)
    )
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-3])
    flip(changed)
    shutil.move(linked, store / "elsewhere")
    linked.symlink_to(store / "elsewhere")
    snapshot = take_snapshot(store)
    assert list(snapshot.damaged) == [RUN_ID]
    with pytest.raises(FaultsError) as caught:
        verify(snapshot, RUN_ID)
    said = [fault.message for fault in caught.value.faults]
    assert len(said) == 4
    for path, what in (
        (gone, f"unit 000000: the committed file {gone} is missing"),
        (short, f"unit 000001: {short} has "),
        (changed, f"unit 000002: {changed} is not what was committed"),
        (linked, f"unit 000003: {linked} is a symbolic link"),
    ):
        assert sum(f"run {RUN_ID}: {what}" in line for line in said) == 1, path


@pytest.mark.parametrize("state", ["complete", "incomplete"])
def test_manifests_are_named_and_the_files_of_the_others(store: Path, state: str) -> None:
    layout = RunLayout(store, RUN_ID)
    if state == "incomplete":
        shutil.rmtree(layout.heads)
    flip(layout.segment("000000"))
    flip(layout.segment("000003"))
    table = next((layout.tables / "routing").glob("000001-*"))
    flip(table)
    with pytest.raises(FaultsError) as caught:
        verify(take_snapshot(store), RUN_ID)
    said = [fault.message for fault in caught.value.faults]
    assert len(said) == 3
    for what in (str(layout.segment("000000")), str(layout.segment("000003")), str(table)):
        assert sum(what in line for line in said) == 1
    assert f"unit 000001: {table}" in caught.value.message


def test_every_contradiction_of_the_values_is_named(tmp_path: Path) -> None:
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
    with pytest.raises(FaultsError) as caught:
        verify(take_snapshot(tmp_path / "store"), RUN_ID)
    first, *layers = [fault.message for fault in caught.value.faults]
    assert "token count is wrong" in first
    assert [line.partition(": ")[0] for line in layers] == [
        f"run {RUN_ID}, layer 1",
        f"run {RUN_ID}, layer 3",
    ]
