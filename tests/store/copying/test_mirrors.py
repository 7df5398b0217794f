"""Mirrors: what a capture commits is copied meanwhile, and what goes wrong does not stop it."""

import time
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import UsageError
from moedb.store.copying import mirror as mirror_module
from moedb.store.copying.mirror import Mirror
from moedb.store.copying.runs import copy_runs, source_of, target_of
from moedb.store.reading.places.remote_store import RemoteStore
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.run_writer import RunWriter
from tests.store.copying.places import counting_files
from tests.support.servers.s3_buckets import Bucket
from tests.support.stores.samples import RUN_ID, sample_manifest, unit_rows, write_sample


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "PAUSE", 0.05)


def commit(writer: RunWriter, *units: int) -> None:
    for unit in units:
        writer.commit_unit(unit, *unit_rows(writer.manifest, unit))


def test_units_are_there_while_the_capture_goes_on(tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    with Mirror(store, RUN_ID, target) as mirror:
        writer = RunWriter(store, sample_manifest())
        writer.begin({})
        commit(writer, 0)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = take_snapshot(target).runs if (target / "moedb.json").exists() else {}
            if RUN_ID in found and "000000" in found[RUN_ID].segments:
                break
            time.sleep(0.05)
        assert read_run(target, RUN_ID).missing_units == [1, 2]
        commit(writer, 1, 2)
        writer.finish()
    assert mirror.problem is None and mirror.copied and mirror.copied.is_complete
    assert counting_files(target, RUN_ID) == counting_files(store, RUN_ID)


def test_a_mirror_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with Mirror(tmp_path / "store", RUN_ID, tmp_path / "full") as mirror:
        mirror.claim(sample_manifest())
        write_sample(tmp_path / "store")
    assert mirror.problem is not None and "neither empty" in mirror.problem.message
    assert mirror.command == f"moedb copy {tmp_path / 'store'} {tmp_path / 'full'} --run {RUN_ID}"
    verify_run(read_run(tmp_path / "store", RUN_ID))


def test_two_machines_with_one_mirror_make_one_run(tmp_path: Path, bucket: Bucket) -> None:
    """Each has half of the units; they agree on the configuration before either begins."""
    shards = ((0, 2, 4), (1, 3))
    for number, units in enumerate(shards):
        store = tmp_path / str(number)
        made = sample_manifest(n_units=5)
        row = {**made.row, "created_at": f"2026-01-01T00:00:0{number}+00:00"}
        manifest = type(made)(
            made.run_id, row, made.unit_rows, made.units, made.layers, made.arrays
        )
        with Mirror(store, RUN_ID, bucket.url) as mirror:
            mirror.claim(manifest)
            writer = RunWriter(store, manifest)
            writer.begin({})
            commit(writer, *units)
        assert mirror.problem is None, mirror.problem
    found = take_snapshot(RemoteStore(bucket.url)).runs[RUN_ID]
    assert found.missing_units == [] and found.row["created_at"].endswith("00:00:00+00:00")
    whole = tmp_path / "whole"
    list(copy_runs(source_of(bucket.url), target_of(whole)))
    with Mirror(whole, RUN_ID, bucket.url) as mirror:
        write_sample(whole, n_units=5)
    assert mirror.problem is None
    verify_run(read_run(whole, RUN_ID))
    assert take_snapshot(RemoteStore(bucket.url)).runs[RUN_ID].is_complete


@pytest.mark.model
def test_a_capture_is_mirrored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    arguments = ["capture", "qwen-ioi", "--n", "3", "--store", str(store), "--mirror", str(target)]
    assert run_cli(arguments) == 0
    out, err = capfd.readouterr()
    run_id = out.strip()
    assert "not mirrored" not in err
    assert counting_files(target, run_id) == counting_files(store, run_id)
    assert run_cli(arguments) == 0
    (tmp_path / "file").write_text("")
    arguments[-1] = str(tmp_path / "file")
    assert run_cli(arguments) == 0
    _, err = capfd.readouterr()
    assert "not mirrored, or not all of it" in err and f"--run {run_id}" in err


@pytest.mark.model
def test_interventions_are_mirrored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the command and by the function; the run that they change is not copied."""
    store, target, other = (tmp_path / name for name in ("store", "target", "other"))
    run = moedb.capture_ioi(store, n=2)
    asked = ["--run", run, "--kind", "knock-out-shared", "--layers", "2"]
    arguments = ["intervene", *asked, "--store", str(store), "--mirror", str(target)]
    capfd.readouterr()
    assert run_cli(arguments) == 0
    out, err = capfd.readouterr()
    made = out.strip()
    assert "not mirrored" not in err
    assert [*take_snapshot(target).runs] == [made]
    assert counting_files(target, made) == counting_files(store, made)
    settings = {"kind": "knock-out-shared", "layers": "2", "mirror": other}
    assert moedb.intervene(run, store, **settings) == made  # type: ignore[arg-type]
    assert counting_files(other, made) == counting_files(store, made)
    (tmp_path / "file").write_text("")
    arguments[-1] = str(tmp_path / "file")
    assert run_cli(arguments) == 0
    _, err = capfd.readouterr()
    assert "not mirrored, or not all of it" in err and f"--run {made}" in err


@pytest.mark.model
def test_captures_from_python_are_mirrored(tmp_path: Path, bucket: Bucket) -> None:
    """Two machines' captures with one mirror have one configuration."""
    stores = tmp_path / "here", tmp_path / "there"
    runs = {moedb.capture_ioi(store, n=2, mirror=bucket.url) for store in stores}
    (run,) = runs
    assert counting_files(stores[0], run).keys() == counting_files(stores[1], run).keys()
    configurations = {(store / "runs" / run / "run.json").read_text() for store in stores}
    assert len(configurations) == 1
    for path, content in counting_files(stores[0], run).items():
        assert bucket.contents()[path] == content


@pytest.mark.model
def test_a_mirror_that_fails_is_logged_by_functions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("The cat saw it.\nA dog ran home.\n")
    store, target = tmp_path / "store", tmp_path / "file"
    run = moedb.capture_text(texts, store, lines=True, mirror=tmp_path / "target")
    assert counting_files(tmp_path / "target", run) == counting_files(store, run)
    assert "mirror" not in caplog.text
    target.write_text("")
    assert moedb.capture_text(texts, store, lines=True, mirror=target) == run
    said = f"to finish it: moedb copy {store} {target} --run {run}"
    assert "not mirrored, or not all of it" in caplog.text and said in caplog.text


def test_functions_refuse_an_address_that_is_none_at_once(tmp_path: Path) -> None:
    for call in (
        lambda: moedb.capture_ioi(tmp_path / "store", mirror="ftp://x/y"),
        lambda: moedb.capture_cifar(store=tmp_path / "store", mirror="ftp://x/y"),
        lambda: moedb.intervene("r", tmp_path / "store", kind="patch", mirror="ftp://x/y"),
    ):
        with pytest.raises(UsageError, match="s3://"):
            call()
    assert not (tmp_path / "store").exists()


def test_an_address_that_is_none_is_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    code = run_cli(["capture", "qwen-ioi", "--store", store, "--mirror", "ftp://x/y"])
    assert code == 2 and "s3://" in capfd.readouterr().err
    assert not (tmp_path / "store").exists()
