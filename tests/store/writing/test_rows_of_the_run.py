"""Arrays of the run as a whole: committed with its first rows, under the rules of units."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import moedb
from moedb.errors import FaultsError, StoreDamagedError
from moedb.schemas.manifests import RunManifest
from moedb.schemas.tables import EXPERT_COSINES
from moedb.store.arrays.stored import ArrayKey, open_array
from moedb.store.reading.snapshot import RunSnapshot, read_run, take_snapshot
from moedb.store.verification.run import verify, verify_run
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.contents import run_contents
from tests.support.stores.samples import (
    D_MODEL,
    LAYERS,
    N_EXPERTS,
    N_LAYERS,
    RUN_ID,
    rows_of_run,
    sample_manifest,
    unit_rows,
    write_sample,
)

SETTINGS: dict[str, Any] = {"n_units": 3, "n_vocabulary": 1500}
WEIGHT, GAIN = ArrayKey("unembedding", N_LAYERS), ArrayKey("final_norm", N_LAYERS)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store", **SETTINGS)
    return tmp_path / "store"


def shards(run: RunSnapshot) -> dict[str, str]:
    """The files of the arrays of the run, each with the unit that committed it."""
    return {
        entry.path: unit
        for unit, segment in run.segments.items()
        for entry in segment.shards
        if entry.path.startswith(("arrays.zarr/unembedding/", "arrays.zarr/final_norm/"))
    }


def test_the_first_segment_commits_them(store: Path) -> None:
    run = read_run(store, RUN_ID)
    # of 1,500 rows 1,024 are in the first file, the rest in the second
    assert shards(run) == {
        f"arrays.zarr/unembedding/{N_LAYERS}/c/0/0": "first",
        f"arrays.zarr/unembedding/{N_LAYERS}/c/1/0": "first",
        f"arrays.zarr/final_norm/{N_LAYERS}/c/0": "first",
    }
    for key, rows in rows_of_run(run.manifest)[1].items():
        kept = zarr.open_array(run.layout.arrays, path=key.path, mode="r")
        np.testing.assert_array_equal(kept[:], rows)
    assert kept.metadata.dimension_names == ("d_model",)
    assert kept.attrs["factor"] == 0.5 and kept.attrs["centers"] is False
    assert open_array(run, WEIGHT).shape == (1500, D_MODEL)
    assert verify_run(run).n_layers_summed == 2
    assert RunManifest.from_json(run.manifest.to_json(), "run.json") == run.manifest


def test_a_run_without_them_says_nothing_of_them(tmp_path: Path) -> None:
    written = write_sample(tmp_path / "store").layout.manifest.read_text()
    assert "model_end" not in written


def test_they_are_there_before_any_unit_and_stay_where_one_resumes(tmp_path: Path) -> None:
    manifest = sample_manifest(**SETTINGS)
    tables, arrays = rows_of_run(manifest)
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin(tables, arrays=arrays)
    writer.commit_unit(2, *unit_rows(manifest, 2))
    run = read_run(tmp_path / "store", RUN_ID)
    assert run.missing_units == [0, 1]
    np.testing.assert_array_equal(open_array(run, WEIGHT)[:], arrays[WEIGHT])
    written = {path: (run.layout.folder / path).stat().st_mtime_ns for path in shards(run)}
    write_sample(tmp_path / "store", **SETTINGS)
    write_sample(tmp_path / "whole", **SETTINGS)
    assert run_contents(tmp_path / "store", RUN_ID) == run_contents(tmp_path / "whole", RUN_ID)
    assert written == {path: (run.layout.folder / path).stat().st_mtime_ns for path in written}


def test_of_writers_that_begin_at_once_one_counts(tmp_path: Path) -> None:
    manifest = sample_manifest(**SETTINGS)
    tables, arrays = rows_of_run(manifest)
    barrier = threading.Barrier(4, timeout=30)

    def work() -> None:
        writer = RunWriter(tmp_path / "store", manifest)
        barrier.wait()
        writer.begin(tables, arrays=arrays)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_sample(tmp_path / "store", **SETTINGS)
    write_sample(tmp_path / "alone", **SETTINGS)
    assert run_contents(tmp_path / "store", RUN_ID) == run_contents(tmp_path / "alone", RUN_ID)
    assert len(list((tmp_path / "store").rglob("tables/vocabulary/*.parquet"))) == 1


def test_a_compaction_keeps_them(store: Path) -> None:
    before = run_contents(store, RUN_ID)
    compact_run(store, RUN_ID, timedelta(0))
    run = read_run(store, RUN_ID)
    assert run_contents(store, RUN_ID) == before and len(shards(run)) == 3
    verify_run(run)


@pytest.mark.parametrize("number", range(3))
def test_a_changed_bit_is_found(store: Path, number: int) -> None:
    run = read_run(store, RUN_ID)
    path = run.layout.folder / sorted(shards(run))[number]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FaultsError, match=rf"unit first: {path} is not what was committed"):
        verify(take_snapshot(store), RUN_ID)
    key = GAIN if "final_norm" in str(path) else WEIGHT
    with moedb.open(store) as db, pytest.raises(StoreDamagedError):
        db.verified().array(RUN_ID, key.name, N_LAYERS)


def test_a_missing_file_is_no_hole(store: Path) -> None:
    run = read_run(store, RUN_ID)
    (run.layout.folder / sorted(shards(run))[1]).unlink()
    with pytest.raises(StoreDamagedError, match="is missing"):
        open_array(run, WEIGHT)


def test_another_size_than_the_runs_is_refused(store: Path) -> None:
    run = read_run(store, RUN_ID)
    other = zarr.open_array(run.layout.arrays, path=WEIGHT.path, mode="r+")
    other.resize((1000, D_MODEL))
    with pytest.raises(StoreDamagedError, match="is not what the run was written with"):
        open_array(run, WEIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": "another"}, "1 tokens whose text is not the one that the vocabulary has"),
        ({"token_id": 1}, "1 tokens of the vocabulary with several texts"),
    ],
)
def test_a_vocabulary_that_contradicts_the_tokens_is_found(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    manifest = sample_manifest(n_units=1, n_vocabulary=100)
    tables, arrays = rows_of_run(manifest)
    used = unit_rows(manifest, 0)[0]["tokens"]["token_id"][0]
    for name, value in change.items():
        tables["vocabulary"][name][used] = value
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin(tables, arrays=arrays)
    writer.commit_unit(0, *unit_rows(manifest, 0))
    writer.finish()
    with pytest.raises(StoreDamagedError, match=message):
        verify_run(read_run(tmp_path / "store", RUN_ID))


PAIRS = [(layer, a, b) for layer in LAYERS for a in range(N_EXPERTS) for b in range(a)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"router_cosine": 1.5}, "1 cosines of experts' weights beyond 1"),
        ({"expert_b": N_EXPERTS}, "1 comparisons of experts that the run does not have"),
        ({"layer": 2}, "1 comparisons of experts that the run does not have"),
        ({"expert_a": 0, "expert_b": 2}, "1 pairs of experts that are compared twice, or not"),
    ],
)
def test_comparisons_of_experts_that_contradict_the_run_are_found(
    tmp_path: Path, changed: dict[str, Any], message: str | None
) -> None:
    manifest = sample_manifest(n_units=1)
    rows: dict[str, list[Any]] = {
        name: [0.5] * len(PAIRS) for name in EXPERT_COSINES.column_names[1:]
    }
    rows |= {
        "layer": [layer for layer, _, _ in PAIRS],
        "expert_a": [b for _, _, b in PAIRS],
        "expert_b": [a for _, a, _ in PAIRS],
        **{name: [8] * len(PAIRS) for name in ("n_projection", "n_weights", "n_router")},
        "reason": [None] * len(PAIRS),
    }
    for name, value in changed.items():
        rows[name][0] = value
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin({"expert_cosines": rows})
    writer.commit_unit(0, *unit_rows(manifest, 0))
    writer.finish()
    run = read_run(tmp_path / "store", RUN_ID)
    if message is None:
        assert str(verify_run(run)).startswith("sound")
    else:
        with pytest.raises((StoreDamagedError, FaultsError), match=message):
            verify_run(run)
