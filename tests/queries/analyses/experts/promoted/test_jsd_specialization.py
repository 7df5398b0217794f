"""How far experts' token ids are from their layer's, against scipy over the raw tables."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.spatial.distance import jensenshannon
from scipy.stats import t as student

import moedb
from moedb.errors import ArrayNotFoundError, ParameterError, UsageError
from moedb.queries.analyses.experts.jsd_specialization import _rows, jensen_shannon
from moedb.queries.analyses.experts.promoted.spherical import directions, spherical_clusters
from moedb.store.reading.snapshot import read_run
from tests.queries.analyses.experts.promoted.test_promoted_tokens import table, write
from tests.support.stores.samples import RUN_ID


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("jsd") / "store")


def clusters_of_ids(store: Path, n: int) -> np.ndarray:
    run = read_run(store, RUN_ID)
    [end] = run.manifest.arrays["unembedding"]
    weight = zarr.open_group(run.layout.arrays, mode="r")[f"unembedding/{end}"][:]
    n_tokens = len(table(store, RUN_ID, "vocabulary"))
    return spherical_clusters(directions(weight[:n_tokens]), n, 0)


def shares(clusters: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(clusters, minlength=n) / len(clusters)


def test_ids_of_tokens_are_counted_by_cluster(store: Path) -> None:
    n = 5
    of_id = clusters_of_ids(store, n)
    rows = table(store, RUN_ID, "routing").merge(table(store, RUN_ID, "tokens"), on="token_idx")
    rows = rows[rows["token_id"] < len(of_id)]
    found = moedb.open(store).query("jsd-specialization", clusters=n, split="all").df()
    assert len(found) == len(rows[["layer", "expert"]].drop_duplicates())
    for row in found.itertuples():
        of_layer = rows[rows["layer"] == row.layer]
        own = of_layer[of_layer["expert"] == row.expert]["token_id"]
        expected = jensenshannon(
            shares(of_id[own], n), shares(of_id[of_layer["token_id"]], n), base=2
        )
        assert row.jsd == pytest.approx(expected**2, abs=1e-6)
        assert row.n_ids == len(own)
        assert row.jsd_less_null == pytest.approx(row.jsd - row.jsd_null)


def test_intervals_are_of_what_leaving_out_examples_changes(store: Path) -> None:
    n = 5
    of_id = clusters_of_ids(store, n)
    rows = table(store, RUN_ID, "routing").merge(table(store, RUN_ID, "tokens"), on="token_idx")
    rows = rows[rows["token_id"] < len(of_id)]
    found = moedb.open(store).query("jsd-specialization", clusters=n, split="all").df()
    examples = rows["example_id"].unique()
    checked = 0
    for row in found.itertuples():
        of_layer = rows[rows["layer"] == row.layer]
        without = []
        for example in examples:
            rest = of_layer[of_layer["example_id"] != example]
            own = rest[rest["expert"] == row.expert]["token_id"]
            if not len(own):
                break
            distance = jensenshannon(
                shares(of_id[own], n), shares(of_id[rest["token_id"]], n), base=2
            )
            without.append(distance**2 - row.jsd_null * row.n_ids / len(own))
        if len(without) < len(examples):
            assert np.isnan(row.jsd_less_null_low)  # one example has all of the expert's tokens
            continue
        error = np.std(without) * np.sqrt(len(examples) - 1)
        half = (row.jsd_less_null_high - row.jsd_less_null_low) / 2
        assert row.jsd_less_null_low + half == pytest.approx(row.jsd_less_null, abs=1e-6)
        assert student.ppf(0.975, len(examples) - 1) - 1e-3 < half / error
        assert half / error < student.ppf(0.975, 1) + 1e-3
        checked += 1
    assert checked > 2


def test_a_single_cluster_has_no_interval_and_what_is_alike_no_width() -> None:
    counts = np.random.default_rng(0).integers(1, 9, (2, 4)).astype(float)
    for row in _rows(3, counts[None], 5, 0):
        assert (row.jsd_less_null_low, row.jsd_less_null_high) == (None, None)
    # six documents that are the same: nothing is told of how others would differ
    for row in _rows(3, np.stack([counts] * 6), 5, 0):
        low, high = row.jsd_less_null_low, row.jsd_less_null_high
        assert (low is None) == (high is None)
    with_unused = np.stack([np.vstack([counts, np.zeros(4)])] * 6)
    assert [row.expert for row in _rows(3, with_unused, 5, 0)] == [0, 1]


def test_an_unknown_cluster_is_refused(store: Path) -> None:
    with pytest.raises(ParameterError, match="no example of text-0123456789 has a label"):
        moedb.open(store).query("jsd-specialization", clusters=5, cluster="no such key")


def test_promoted_ids_are_the_largest_logits_of_each_output(store: Path) -> None:
    n, run = 4, read_run(store, RUN_ID)
    of_id = clusters_of_ids(store, n)
    group = zarr.open_group(run.layout.arrays, mode="r")
    [end] = run.manifest.arrays["unembedding"]
    n_tokens = len(table(store, RUN_ID, "vocabulary"))
    weight = np.asarray(group[f"unembedding/{end}"][:], np.float64)[:n_tokens]
    gain = np.asarray(group[f"final_norm/{end}"][:], np.float64)
    rows = table(store, RUN_ID, "routing").merge(table(store, RUN_ID, "tokens"), on="token_idx")
    layer = int(rows["layer"].min())
    rows = rows[(rows["layer"] == layer) & rows["array_row"].notna()]
    outputs = group[f"expert_outputs/{layer}"][:][
        rows["array_row"].astype(int), rows["rank"].astype(int)
    ]
    ids = np.argsort(-(outputs * gain) @ weight.T, axis=1)[:, :2]
    asked = {"of": "promoted", "n": 2, "clusters": n, "layer": layer, "split": "all"}
    found = moedb.open(store).query("jsd-specialization", **asked).df()
    for row in found.itertuples():
        own = ids[rows["expert"].to_numpy() == row.expert].ravel()
        expected = jensenshannon(shares(of_id[own], n), shares(of_id[ids.ravel()], n), base=2)
        assert row.n_ids == len(own)
        assert row.jsd == pytest.approx(expected**2, abs=1e-6)


def test_what_is_drawn_from_the_layer_is_as_far_as_the_null_says() -> None:
    random = np.random.default_rng(0)
    layer = np.array([50.0, 30, 15, 5])
    drawn = random.multinomial(40, layer / layer.sum(), 4000)
    found = jensen_shannon(drawn, layer)
    assert found[:2000].mean() == pytest.approx(found[2000:].mean(), rel=0.05)
    assert jensen_shannon(layer, layer) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(np.array([1.0, 0, 0, 0]), np.array([0, 0, 0, 1.0])) == pytest.approx(
        1, abs=1e-5
    )


def test_planted_directions_are_found_whatever_their_lengths() -> None:
    random = np.random.default_rng(1)
    centres = np.eye(4, 16)
    of_row = random.integers(0, 4, 400)
    vectors = (centres[of_row] + random.normal(0, 0.05, (400, 16))) * random.uniform(1, 9, (400, 1))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = spherical_clusters(unit, 4, 0)
    pairs = {(planted, cluster) for planted, cluster in zip(of_row, found, strict=True)}
    assert len(pairs) == 4


def test_a_row_that_is_the_mean_has_no_direction() -> None:
    found = directions(np.array([[1.0, 0], [-1, 0], [0, 0]]))
    assert found.tolist() == [[1, 0], [-1, 0], [0, 0]]


def test_what_is_missing_is_said(store: Path, mini_store: Path) -> None:
    with pytest.raises(UsageError, match="60 tokens cannot be divided into 61 clusters"):
        moedb.open(store).query("jsd-specialization", clusters=61)
    with pytest.raises((ArrayNotFoundError, UsageError), match="unembedding"):
        moedb.open(mini_store).query("jsd-specialization")
