"""A store of format 1 written anew: the same values, the old store untouched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest

from moedb.cli import run_cli
from moedb.errors import StoreVersionError, UsageError
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.migration import check_migration, migrate_run
from moedb.store.writing.removal import remove_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.golden import contents, expected, unpack
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows

BF16 = "qwen-ioi-c209bb996a"
UNFINISHED = "text-aaaaaaaaaa"
ROUNDED = ("routing", "router_stats")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return unpack("format-1", tmp_path)


@pytest.fixture
def moedb_cli(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_cli([*map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_value_is_there_and_the_old_store_as_it_was(
    old: Path, tmp_path: Path, moedb_cli: Run
) -> None:
    before = bytes_of(old)
    code, out, err = moedb_cli("migrate", old, tmp_path / "new")
    assert code == 0, err
    assert [line.split()[0].rstrip(":") for line in out.splitlines()] == sorted(
        expected("format-1")
    )
    assert bytes_of(old) == before
    known = expected("format-1")
    found = contents(tmp_path / "new", known)
    for table in ROUNDED:  # of a model in bfloat16; looked at below
        assert found[BF16].pop(table)["n_rows"] == known[BF16].pop(table)["n_rows"]
    for run_id, tables in known.items():  # when it was finished is what the view says
        assert (tables.pop("runs", None) is None) == (found[run_id].pop("runs", None) is None)
    assert found == known
    rows = {run.run_id: run.row for run in take_snapshot(old).runs.values()}
    assert {r.run_id: r.row for r in take_snapshot(tmp_path / "new").runs.values()} == rows
    assert json.loads((tmp_path / "new" / "moedb.json").read_text())["major"] == 2


def test_what_is_derived_of_a_bfloat16_model_is_rounded_and_nothing_else(
    old: Path, tmp_path: Path, moedb_cli: Run
) -> None:
    moedb_cli("migrate", old, tmp_path / "new")
    kept = {
        "routing": {"output_norm": 8},
        "router_stats": {
            "entropy": 12,
            "margin": 12,
            "logsumexp": 12,
            "topk_mass": 12,
            "moe_output_norm": 8,
        },
    }
    for table, bits in kept.items():
        before, after = (
            duckdb.read_parquet(
                [str(path) for path in take_snapshot(store).runs[BF16].files(table)]
            )
            .order("layer, token_idx" + (", rank" if table == "routing" else ""))
            .fetchnumpy()
            for store in (old, tmp_path / "new")
        )
        for column, values in before.items():
            if column not in bits:
                np.testing.assert_array_equal(values, after[column])
                continue
            mantissa, exponent = np.frexp(values.astype(np.float64))
            scale = 2.0 ** bits[column]
            nearest = np.ldexp(np.round(mantissa * scale) / scale, exponent)
            np.testing.assert_array_equal(after[column], nearest)
            assert (after[column] != values).any()
    manifest = RunLayout(tmp_path / "new", BF16).segment("000000")
    routing = json.loads(manifest.read_text())["tables"]["routing"][0]
    assert routing["significant_bits"] == {"weight": 8, "output_norm": 8}


def test_decisions_are_counted_by_example(old: Path, tmp_path: Path, moedb_cli: Run) -> None:
    moedb_cli("migrate", old, tmp_path / "new")
    run = take_snapshot(tmp_path / "new").runs[BF16]
    tables = {
        name: duckdb.read_parquet([str(path) for path in run.files(name)]).fetchnumpy()
        for name in ("routing", "tokens", "router_mass")
    }
    example_of = dict(
        zip(tables["tokens"]["token_idx"], tables["tokens"]["example_id"], strict=True)
    )
    counted: dict[tuple[int, int, int], list[float]] = {}
    for token, layer, expert, weight in zip(
        *(tables["routing"][name] for name in ("token_idx", "layer", "expert", "weight")),
        strict=True,
    ):
        counted.setdefault((example_of[token], layer, expert), []).append(float(weight))
    mass = tables["router_mass"]
    for row in range(len(mass["layer"])):
        key = (mass["example_id"][row], mass["layer"][row], mass["expert"][row])
        weights = counted.pop(key, [])
        assert mass["n_decisions"][row] == len(weights)
        np.testing.assert_allclose(mass["weight"][row], sum(weights), rtol=1e-12)
    assert not counted


def test_a_store_of_format_1_is_read_and_deleted_from_but_not_written(
    old: Path, moedb_cli: Run, tmp_path: Path
) -> None:
    with pytest.raises(StoreVersionError, match=r"format 1.*read but no longer written") as caught:
        RunWriter(old, sample_manifest(run_id="text-new"))
    assert "moedb migrate" in str(caught.value) and caught.value.exit_code == 3
    assert moedb_cli("runs", "--store", old)[0] == 0
    assert moedb_cli("query", "expert-frequency", "--run", BF16, "--store", old)[0] == 0
    code, out, _ = moedb_cli(
        "sql",
        "select count(*) as n, count(n_decisions) as known, count(weight) as w from router_mass",
        "--store",
        old,
        "--format",
        "csv",
    )
    assert (code, out.split()[-1].split(",")[1:]) == (0, ["0", "0"])
    assert moedb_cli("verify", "--store", old)[0] == 0
    assert moedb_cli("compact", "--store", old)[0] == 3
    assert moedb_cli("rm", RUN_ID, "--yes", "--store", old)[0] == 0
    assert RUN_ID not in take_snapshot(old).runs


def test_one_that_was_stopped_goes_on(old: Path, tmp_path: Path, moedb_cli: Run) -> None:
    new = tmp_path / "new"
    source = take_snapshot(old).runs[RUN_ID]
    # as if it had been killed after the first unit
    writer = RunWriter(new, source.manifest)
    writer.begin({})
    assert moedb_cli("migrate", old, new)[0] == 0
    again = bytes_of(new)
    assert moedb_cli("migrate", old, new)[0] == 0
    assert bytes_of(new) == again
    for run in take_snapshot(new).runs.values():
        verify_run(run)


def test_an_incomplete_run_is_finished_in_the_new_store(
    old: Path, tmp_path: Path, moedb_cli: Run
) -> None:
    new = tmp_path / "new"
    moedb_cli("migrate", old, new)
    writer = RunWriter(new, sample_manifest(n_units=3, run_id=UNFINISHED))
    assert writer.snapshot().missing_units == [1]
    writer.commit_unit(1, *unit_rows(writer.manifest, 1))
    writer.finish()
    run = take_snapshot(new).runs[UNFINISHED]
    assert run.is_complete and verify_run(run).n_decisions == 60


def test_damage_is_left_out_and_said(old: Path, tmp_path: Path, moedb_cli: Run) -> None:
    layout = RunLayout(old, RUN_ID)
    file = next((layout.tables / "routing").iterdir())
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    shutil.rmtree(RunLayout(old, BF16).tables / "routing")
    code, out, err = moedb_cli("migrate", old, tmp_path / "new")
    assert code == 3 and f"not in {tmp_path / 'new'}" in err
    assert "is not what was committed" in out and "is missing" in out
    assert take_snapshot(tmp_path / "new").runs["intervene-d676f4a74b"].is_complete
    assert not take_snapshot(tmp_path / "new").runs[RUN_ID].is_complete


def test_places_and_formats_that_make_no_sense_are_refused(
    old: Path, tmp_path: Path, moedb_cli: Run
) -> None:
    for target in (old, old / "runs" / "new", old.parent):
        with pytest.raises(UsageError, match="a folder of its own"):
            check_migration(old, target, 1)
    assert moedb_cli("migrate", old, tmp_path / "new")[0] == 0
    code, _, err = moedb_cli("migrate", tmp_path / "new", tmp_path / "newer")
    assert code == 2 and "nothing to migrate" in err
    assert moedb_cli("migrate", tmp_path / "nowhere", tmp_path / "newer")[0] == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert moedb_cli("migrate", old, tmp_path / "mine")[0] == 3


def test_another_run_of_the_name_is_not_mixed_with(old: Path, tmp_path: Path) -> None:
    run = take_snapshot(old).runs[RUN_ID]
    migrate_run(run, tmp_path / "new")
    remove_run(tmp_path / "new", RUN_ID)
    RunWriter(tmp_path / "new", sample_manifest(n_units=4)).begin({})
    with pytest.raises(Exception, match=f"has another run {RUN_ID}"):
        migrate_run(run, tmp_path / "new")
