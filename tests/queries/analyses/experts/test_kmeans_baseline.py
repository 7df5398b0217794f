"""Experts and k-means clusters beside labels, against the definitions and known clusters."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import hypergeom

import moedb
from moedb.errors import ArrayNotFoundError, ParameterError, UsageError
from moedb.queries.analyses.experts.kmeans_baseline import purity
from moedb.queries.analyses.experts.router_inputs import cluster
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.database import Database
from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import D_MODEL, LAYERS, N_EXPERTS, sample_manifest, unit_rows

GROUPED, BARE, PLAIN = (f"{name}-0123456789" for name in ("grouped", "bare", "plain"))
N_UNITS, N_TOKENS = 3, 120


def groups_of(unit: int, layer: int) -> np.ndarray:
    """(token,): which of four far corners each token lies at; layer by layer anew."""
    return np.random.default_rng([3, unit, layer]).integers(0, N_EXPERTS, N_TOKENS)


def inputs_of(unit: int, layer: int) -> np.ndarray:
    """(token, d_model): a corner, and a little noise."""
    rng = np.random.default_rng([4, unit, layer])
    corners = 20 * np.eye(D_MODEL)[:N_EXPERTS]
    noise = rng.normal(size=(N_TOKENS, D_MODEL))
    return (corners[groups_of(unit, layer)] + noise).astype(np.float32)


def labels_of(unit: int) -> pd.DataFrame:
    """Token labels: one of the groups of layer 1, one of chance on half of the tokens, a constant.

    Every fifth token has a second value of chance.
    """
    token_idx = unit * N_TOKENS + np.arange(N_TOKENS)
    chance = np.random.default_rng([5, unit]).integers(0, 3, N_TOKENS)
    half = token_idx[::2]
    parts = [
        (token_idx, "parity", (groups_of(unit, 1) % 2).astype(str)),
        (token_idx, "constant", np.full(N_TOKENS, "same")),
        (half, "chance", chance[::2].astype(str)),
        (half[::5], "chance", np.full(len(half[::5]), "second")),
    ]
    return pd.concat(
        pd.DataFrame({"token_idx": at, "key": key, "value": values}) for at, key, values in parts
    )


def write(store: Path, run_id: str, arrays: tuple[str, ...], labelled: bool) -> None:
    """A run of the samples, its third unit corrupted, some tokens of each without a row."""
    manifest = sample_manifest(N_UNITS, N_TOKENS, run_id, arrays=arrays)
    writer = RunWriter(store, manifest)
    writer.begin({})
    for unit in range(N_UNITS):
        tables, kept = unit_rows(manifest, unit)
        if unit == 2:
            tables["examples"] = {**tables["examples"], "split": ["corrupted"]}
        if labelled:
            tables["token_labels"] = dict(labels_of(unit).items())
        if "router_input" in arrays:
            for layer in LAYERS:
                kept[ArrayKey("router_input", layer)] = inputs_of(unit, layer)
        array_row = unit * manifest.unit_rows + np.arange(N_TOKENS).astype(object)
        array_row[5::7] = None
        tables["tokens"] = {**tables["tokens"], "array_row": list(array_row)}
        writer.commit_unit(unit, tables, kept)
    writer.finish()


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    store = tmp_path_factory.mktemp("kmeans") / "store"
    write(store, GROUPED, ("router_input",), labelled=True)
    write(store, PLAIN, ("router_input",), labelled=False)
    write(store, BARE, ("router_logits",), labelled=True)
    with moedb.open(store) as database:
        yield database


ENDS = [
    f"{name}_{end}" for name in ("ami_experts", "ami_clusters", "lead") for end in ("low", "high")
]


def plain_ami(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted mutual information from its definition, the expectation summed term by term."""
    counts = pd.crosstab(a, b).to_numpy()
    n, rows, columns = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)

    def entropy(sizes: np.ndarray) -> float:
        return float(-(sizes / n * np.log(sizes / n)).sum())

    def term(both: np.ndarray | int, row: int, column: int) -> np.ndarray:
        both = np.asarray(both, dtype=float)
        return np.where(both > 0, both / n * np.log(np.maximum(both, 1) * n / (row * column)), 0)

    found = expected = 0.0
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            found += float(term(counts[i, j], row, column))
            sizes = np.arange(min(row, column) + 1)
            chances = hypergeom(n, row, column).pmf(sizes)
            expected += float((chances * term(sizes, row, column)).sum())
    return (found - expected) / ((entropy(rows) + entropy(columns)) / 2 - expected)


def plain_purity(groups: np.ndarray, values: np.ndarray) -> float:
    frame = pd.DataFrame({"group": groups, "value": values})
    largest = frame.groupby("group")["value"].agg(lambda own: own.value_counts().max())
    return float(largest.sum() / len(frame))


def tokens_of(layer: int, units: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    """Each kept token of a layer, with its group and its first-ranked expert."""
    manifest = sample_manifest(N_UNITS, N_TOKENS)
    parts = []
    for unit in units:
        routing = pd.DataFrame(unit_rows(manifest, unit)[0]["routing"])
        first = routing[(routing["layer"] == layer) & (routing["rank"] == 0)]
        own = first[["token_idx", "expert"]].assign(group=groups_of(unit, layer))
        parts.append(own[np.arange(N_TOKENS) % 7 != 5])
    return pd.concat(parts, ignore_index=True)


def expected_row(layer: int, key: str, units: tuple[int, ...] = (0, 1)) -> dict[str, object]:
    tokens = tokens_of(layer, units)
    labels = pd.concat(labels_of(unit) for unit in units)
    found = tokens.merge(labels[labels["key"] == key], on="token_idx")
    values = found["value"].to_numpy()
    experts, groups = found["expert"].to_numpy(), found["group"].to_numpy()
    of_experts, of_groups = plain_ami(values, experts), plain_ami(values, groups)
    return {
        "layer": layer,
        "n_clusters": N_EXPERTS,
        "key": key,
        "n_tokens": len(found),
        "n_values": len(set(values)),
        "ami_experts": of_experts,
        "ami_clusters": of_groups,
        "lead": of_experts - of_groups,
        "purity_experts": plain_purity(experts, values),
        "purity_clusters": plain_purity(groups, values),
        "purity_of_one": found["value"].value_counts().max() / len(found),
        "ami_between": plain_ami(tokens["expert"].to_numpy(), tokens["group"].to_numpy()),
    }


@pytest.mark.parametrize(("split", "units"), [(None, (0, 1)), ("all", (0, 1, 2))])
def test_agrees_with_the_definitions_where_the_clusters_are_known(db, split, units):
    frame = db.query("kmeans-baseline", run=GROUPED, split=split).df()
    wanted = [expected_row(layer, key, units) for layer in LAYERS for key in ("chance", "parity")]
    pd.testing.assert_frame_equal(
        frame.drop(columns=ENDS), pd.DataFrame(wanted), check_dtype=False, rtol=1e-9
    )
    known = frame[(frame["layer"] == 1) & (frame["key"] == "parity")].iloc[0]
    assert known["purity_clusters"] == 1.0 and known["ami_clusters"] > 0.6
    assert known["ami_experts"] < 0.1 and known["ami_between"] < 0.1


def test_one_layer_and_one_key(db):
    result = db.query("kmeans-baseline", run=GROUPED, layer=3, key="chance")
    (row,) = result.df().to_dict("records")
    wanted = expected_row(3, "chance")
    assert {name: row[name] for name in wanted} == pytest.approx(wanted)
    assert result.provenance.runs[0].run_id == GROUPED


def test_intervals_leave_out_one_example_at_a_time(db):
    """There are two of them, so that Student's t has one degree of freedom."""
    (row,) = db.query("kmeans-baseline", run=GROUPED, layer=1, key="parity").df().to_dict("records")
    without = [expected_row(1, "parity", units) for units in ((1,), (0,))]
    for name in ("ami_experts", "ami_clusters", "lead"):
        half = stats.t.ppf(0.975, 1) * abs(without[0][name] - without[1][name]) / 2
        ends = row[name] - half, row[name] + half
        # what chance gives halves of the tokens is taken from all of them
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(ends, abs=0.05)
    with pytest.raises(ParameterError, match=r"no example of .* has a label of this key"):
        db.query("kmeans-baseline", run=GROUPED, cluster="author")


def test_without_labels_experts_and_clusters_are_still_compared(db):
    frame = db.query("kmeans-baseline", run=PLAIN).df()
    assert frame["layer"].tolist() == list(LAYERS)
    assert frame["key"].isna().all() and frame["ami_experts"].isna().all()
    tokens = tokens_of(1)
    assert frame["n_tokens"].tolist() == [len(tokens)] * 2
    wanted = plain_ami(tokens["expert"].to_numpy(), tokens["group"].to_numpy())
    assert frame["ami_between"][0] == pytest.approx(wanted)


def test_no_more_tokens_than_asked_for(db):
    frame = db.query("kmeans-baseline", run=GROUPED, key="parity", max_tokens=50).df()
    assert set(frame["n_tokens"]) == {50}
    with pytest.raises(UsageError, match="3 tokens of layer 1 cannot be divided into 4 clusters"):
        db.query("kmeans-baseline", run=GROUPED, max_tokens=3)


def test_declared_columns_and_types(db):
    analysis = ANALYSES["kmeans-baseline"]
    result = db.query("kmeans-baseline", run=GROUPED)
    assert result.columns == list(analysis.column_names)
    assert result.types == [column.sql_type for column in analysis.columns]


def test_a_run_without_router_inputs(db):
    with pytest.raises(ArrayNotFoundError, match="no router_input to cluster; it has router") as e:
        db.query("kmeans-baseline", run=BARE)
    assert e.value.hint == "capture again with --arrays router_input"
    with pytest.raises(ParameterError, match=r"no MoE layer 2 in run .*valid: 1, 3"):
        db.query("kmeans-baseline", run=GROUPED, layer=2)


@pytest.mark.parametrize(("name", "given"), [("max_tokens", 0), ("restarts", 0), ("seed", -1)])
def test_numbers_out_of_range(db, name, given):
    with pytest.raises(ParameterError, match=f"{name} is {given}, not {given + 1} (or more|to)"):
        db.query("kmeans-baseline", run=GROUPED, **{name: given})


def test_restarts_find_the_tightest_clusters():
    rng = np.random.default_rng(0)
    corners = 30 * rng.normal(size=(12, 16))
    groups = np.repeat(np.arange(12), 20)
    vectors = corners[groups] + rng.normal(size=(240, 16))
    found = cluster(vectors, 12, restarts=20, seed=1)
    assert len(set(zip(groups, found, strict=True))) == 12
    np.testing.assert_array_equal(found, cluster(vectors, 12, restarts=20, seed=1))


def test_vectors_that_coincide_leave_clusters_empty(recwarn):
    found = cluster(np.repeat(np.eye(2), 5, axis=0), 3, restarts=2, seed=0)
    assert len(set(found[:5])) == len(set(found[5:])) == 1 and found[0] != found[9]
    assert not recwarn.list


def test_purity_of_a_case_by_hand():
    groups = np.array([0, 0, 0, 1, 1, 2])
    values = np.array(["a", "a", "b", "b", "c", "c"])
    assert purity(groups, values) == (2 + 1 + 1) / 6


def test_a_label_of_one_value_tells_nothing_apart(db: Database) -> None:
    one, two = (db.query("kmeans-baseline", run=GROUPED, key=key) for key in ("constant", "parity"))
    assert "nothing is told apart" in (one.caution or "") and two.caution is None
