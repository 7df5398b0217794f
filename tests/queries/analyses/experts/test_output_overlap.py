"""How alike the outputs of two experts are, against a plain computation over the whole array."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.stats import t as student

import moedb
from moedb.errors import ArrayNotFoundError, ParameterError
from moedb.queries.analyses.experts.output_overlap import (
    PairOverlap,
    co_variation,
    compare_all,
    compare_chosen,
)
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.database import Database
from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import LAYERS, N_EXPERTS, sample_manifest, unit_rows

CHOSEN, EVERY, MIXED, TOP_ONE, BARE, PARTLY = (
    f"{name}-0123456789" for name in ("chosen", "every", "mixed", "topone", "bare", "partly")
)
N_UNITS, N_TOKENS = 3, 1030
ENDS = ("cosine_low", "cosine_high")


def every_output(unit: int, layer: int) -> np.ndarray:
    """(token, expert, d_model): expert 3 is twice expert 1, expert 2 never varies."""
    rng = np.random.default_rng([9, unit, layer])
    outputs = rng.normal(size=(N_TOKENS, N_EXPERTS, 8)).astype(np.float32) + 0.5
    outputs[:, 3] = 2 * outputs[:, 1]
    outputs[:, 2] = np.float32(0.1)
    return outputs


def write(store: Path, run_id: str, arrays: dict[str, tuple[int, ...]], top_k: int = 2) -> None:
    """A run of the samples, its third unit corrupted, a few tokens of each without a row."""
    sample = sample_manifest(N_UNITS, N_TOKENS, run_id)
    layers = tuple({**row, "top_k": top_k} for row in sample.layers)
    manifest = replace(sample, arrays=arrays, layers=layers, unit_rows=2048)
    writer = RunWriter(store, manifest)
    writer.begin({})
    for unit in range(N_UNITS):
        tables, kept = unit_rows(sample, unit)
        if unit == 2:
            tables["examples"] = {**tables["examples"], "split": ["corrupted"]}
        rows = {}
        for name, layers in arrays.items():
            for layer in layers:
                if name == "all_expert_outputs":
                    rows[ArrayKey(name, layer)] = every_output(unit, layer)
                else:
                    stored = kept[ArrayKey(name, layer)]
                    rows[ArrayKey(name, layer)] = stored[:, :top_k] if stored.ndim == 3 else stored
        if top_k == 1:
            ranks = np.asarray(tables["routing"]["rank"])
            tables["routing"] = {
                column: np.asarray(values)[ranks == 0]
                for column, values in tables["routing"].items()
            }
        array_row = unit * manifest.unit_rows + np.arange(N_TOKENS).astype(object)
        array_row[5::7] = None
        tables["tokens"] = {**tables["tokens"], "array_row": list(array_row)}
        writer.commit_unit(unit, tables, rows)
    writer.finish()


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    store = tmp_path_factory.mktemp("outputs") / "store"
    write(store, CHOSEN, {"expert_outputs": LAYERS})
    write(store, EVERY, {"all_expert_outputs": LAYERS}, top_k=1)
    write(store, MIXED, {"expert_outputs": LAYERS, "all_expert_outputs": LAYERS[:1]})
    write(store, TOP_ONE, {"expert_outputs": LAYERS}, top_k=1)
    write(store, BARE, {"router_logits": LAYERS})
    write(store, PARTLY, {"expert_outputs": LAYERS[1:], "router_logits": LAYERS})
    with moedb.open(store) as database:
        yield database


def plain_overlap(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """Mean cosine, linear CKA by the textbook's kernels, and the mean norms.

    There is no CKA where the tokens' outputs are all the same to five digits.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    a_centred, b_centred = a - a.mean(axis=0), b - b.mean(axis=0)
    if len(a) < 500:
        k, m = a_centred @ a_centred.T, b_centred @ b_centred.T
        products = (k * m).sum(), (k * k).sum(), (m * m).sum()
    else:
        left, right = (a_centred, a_centred, b_centred), (b_centred, a_centred, b_centred)
        products = tuple(
            (np.cov(x.T, y.T)[:8, 8:] ** 2).sum() for x, y in zip(left, right, strict=True)
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        cka = products[0] / np.sqrt(products[1] * products[2])
    if any(np.abs(x - x[0]).max() < 1e-5 * np.abs(x).max() for x in (a, b)):
        cka = np.nan
    return ((a * b).sum(axis=1) / norms_a / norms_b).mean(), cka, norms_a.mean(), norms_b.mean()


def expected(
    database: Database, run: str, layer: int, every: bool, split: str | None = None
) -> pd.DataFrame:
    """The rows of a layer, from the raw tables and the whole array."""
    group = zarr.open_group(database.snapshot.run(run).layout.arrays, mode="r")
    name = "all_expert_outputs" if every else "expert_outputs"
    values = np.asarray(group[f"{name}/{layer}"])
    tokens = database.sql(
        f"select token_idx, array_row from tokens join examples using (run_id, example_id) "
        f"where run_id = '{run}' and array_row is not null and "
        + {None: "split <> 'corrupted'", "all": "true"}.get(split, f"split = '{split}'")
    ).df()
    routing = database.sql(
        f"select token_idx, rank, expert from routing where run_id = '{run}' and layer = {layer}"
    ).df()
    used = routing.merge(tokens, on="token_idx")
    places = {
        expert: dict(zip(own["array_row"].astype(int), own["rank"], strict=True))
        for expert, own in used.groupby("expert")
    }
    rows = []
    experts = range(int(database.sql(f"select max(n_experts) from moe_layers where "
                                     f"run_id = '{run}'").fetchall()[0][0]))  # fmt: skip
    for a, b in combinations(experts, 2):
        if every:
            at = tokens["array_row"].to_numpy(int)
            one, other = values[at, a], values[at, b]
        else:
            both = sorted(set(places.get(a, {})) & set(places.get(b, {})))
            if len(both) < 2:
                continue
            one = np.stack([values[row, places[a][row]] for row in both])
            other = np.stack([values[row, places[b][row]] for row in both])
        rows.append((layer, a, b, len(one), *plain_overlap(one, other)))
    names = ANALYSES["output-overlap"].column_names
    return pd.DataFrame(rows, columns=[name for name in names if name not in ENDS])


def assert_same(actual: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        actual[wanted.columns].reset_index(drop=True),
        wanted,
        check_dtype=False,
        rtol=1e-9,
        atol=1e-12,
    )


class TestOutputOverlap:
    @pytest.mark.parametrize("split", [None, "all", "corrupted"])
    def test_chosen_experts_over_the_tokens_that_use_both(self, db, split):
        frame = db.query("output-overlap", run=CHOSEN, split=split).df()
        for layer in LAYERS:
            wanted = expected(db, CHOSEN, layer, every=False, split=split)
            assert wanted["n_tokens"].min() > 100
            assert_same(frame[frame["layer"] == layer], wanted)

    def test_every_expert_over_all_kept_tokens(self, db):
        result = db.query("output-overlap", run=EVERY, layer=3)
        frame = result.df()
        wanted = expected(db, EVERY, 3, every=True)
        still = wanted["expert_a"].eq(2) | wanted["expert_b"].eq(2)
        assert wanted["cka"].isna().equals(still)
        assert_same(frame, wanted)
        assert set(frame["n_tokens"]) == {2 * (N_TOKENS - N_TOKENS // 7)}
        twice = frame.query("expert_a == 1 and expert_b == 3").iloc[0]
        assert twice["cosine"] == pytest.approx(1.0) and twice["cka"] == pytest.approx(1.0)
        assert twice["norm_b"] == pytest.approx(2 * twice["norm_a"])
        assert result.provenance.runs[0].run_id == EVERY

    def test_every_expert_is_preferred_layer_by_layer(self, db):
        frame = db.query("output-overlap", run=MIXED).df()
        wanted = [expected(db, MIXED, layer, every=layer == LAYERS[0]) for layer in LAYERS]
        assert frame["n_tokens"].tolist() == pd.concat(wanted)["n_tokens"].tolist()

    def test_intervals_are_over_examples(self, db):
        frame = db.query("output-overlap", run=EVERY, layer=3, split="all").df()
        group = zarr.open_group(db.snapshot.run(EVERY).layout.arrays, mode="r")
        values = np.asarray(group["all_expert_outputs/3"]).astype(np.float64)
        tokens = db.sql(
            "select array_row, example_id from tokens "
            "where run_id = $run and array_row is not null",
            {"run": EVERY},
        ).df()
        for row in frame.query("expert_a == 0 or expert_b == 3").itertuples():
            one, other = (values[tokens["array_row"], e] for e in (row.expert_a, row.expert_b))
            norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            cosines = tokens.assign(cosine=(one * other).sum(axis=1) / norms)
            if (row.expert_a, row.expert_b) == (1, 3):  # all are 1, but for rounding
                assert np.isnan([row.cosine_low, row.cosine_high]).all()
                continue
            without = np.array(
                [cosines.loc[cosines["example_id"] != e, "cosine"].mean() for e in range(N_UNITS)]
            )
            apart = without - without.mean()
            error = np.sqrt((N_UNITS - 1) / N_UNITS * (apart**2).sum())
            degrees = min(N_UNITS, 3 * (apart**2).sum() ** 2 / (apart**4).sum()) - 1
            half = student.ppf(0.975, degrees) * error
            wanted = np.clip([row.cosine - half, row.cosine + half], -1, 1)
            np.testing.assert_allclose([row.cosine_low, row.cosine_high], wanted, rtol=1e-6)

    def test_min_and_max_tokens(self, db):
        full = db.query("output-overlap", run=CHOSEN, layer=1).df()
        least = int(full["n_tokens"].median())
        frame = db.query("output-overlap", run=CHOSEN, layer=1, min_tokens=least).df()
        assert_same(frame, full[full["n_tokens"] >= least].reset_index(drop=True))
        few = db.query("output-overlap", run=CHOSEN, layer=1, max_tokens=90, min_tokens=1).df()
        assert few["n_tokens"].sum() == 90
        many = db.query("output-overlap", run=CHOSEN, layer=1, max_tokens=10**6).df()
        assert_same(many, full)
        every = db.query("output-overlap", run=EVERY, max_tokens=70).df()
        assert set(every["n_tokens"]) == {70}

    def test_declared_columns_and_types(self, db):
        analysis = ANALYSES["output-overlap"]
        result = db.query("output-overlap", run=CHOSEN, min_tokens=10**6)
        assert result.fetchall() == []
        assert "the outputs of 1000000 tokens in common" in result.why_empty()
        assert result.columns == list(analysis.column_names)
        assert result.types == [column.sql_type for column in analysis.columns]

    def test_only_layers_that_keep_outputs(self, db):
        assert set(db.query("output-overlap", run=PARTLY).df()["layer"]) == {LAYERS[1]}
        with pytest.raises(
            ArrayNotFoundError, match=r"of layer 1: kept are layers \[3\]"
        ) as caught:
            db.query("output-overlap", run=PARTLY, layer=1)
        assert caught.value.hint == "capture again with --arrays expert_outputs@1"

    def test_one_expert_a_token_has_no_pair(self, db):
        with pytest.raises(ArrayNotFoundError, match="chooses one expert for each token") as caught:
            db.query("output-overlap", run=TOP_ONE)
        assert caught.value.hint == "capture again with --arrays all_expert_outputs"
        with pytest.raises(ArrayNotFoundError) as caught:
            db.query("output-overlap", run=TOP_ONE, layer=3)
        assert caught.value.hint == "capture again with --arrays all_expert_outputs@3"

    def test_a_run_without_outputs(self, db):
        with pytest.raises(ArrayNotFoundError, match="none of that name; it has router") as caught:
            db.query("output-overlap", run=BARE)
        assert caught.value.hint == "capture again with --arrays expert_outputs"

    @pytest.mark.parametrize("name", ["min_tokens", "max_tokens"])
    def test_numbers_of_tokens_are_positive(self, db, name):
        with pytest.raises(ParameterError, match=f"{name} is 0, not 1 or more"):
            db.query("output-overlap", run=CHOSEN, **{name: 0})


class TestComparisons:
    @pytest.mark.parametrize("n", [1, 3, 8, 9, 1500])
    def test_both_ways_to_the_co_variation_agree(self, n):
        rng = np.random.default_rng(n)
        a = rng.normal(size=(n, 8)).astype(np.float32)
        b = rng.normal(size=(n, 8)).astype(np.float32)
        a64, b64 = a - a.mean(axis=0, dtype=float), b - b.mean(axis=0, dtype=float)
        assert co_variation(a, b) == pytest.approx(((a64.T @ b64) ** 2).sum(), rel=1e-12)

    def test_cka_ignores_rotation_and_scale(self):
        rng = np.random.default_rng(0)
        a = rng.normal(size=(50, 8))
        rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        outputs = np.stack([a, 3 * a @ rotation + 1, rng.normal(size=(50, 8))], axis=1)
        pairs = {(one, two): pair for one, two, pair in compare_all(outputs)}
        assert pairs[0, 1].cka == pytest.approx(1.0)
        assert abs(pairs[0, 1].cosine) < 0.9 and pairs[0, 2].cka < 0.5

    def test_zeros_and_single_tokens(self):
        outputs = np.zeros((2, 2, 4), np.float32)
        outputs[1] = 1.0
        ((_, _, pair),) = compare_all(outputs)
        assert (pair.n_tokens, pair.cosine, pair.norm_a) == (2, 1.0, 1.0)
        ((_, _, pair),) = compare_all(outputs[:1])
        assert (pair.cosine, pair.cka, pair.norm_b) == (None, None, 0.0)
        assert list(compare_all(outputs[:0])) == []
        assert list(compare_chosen(outputs[:0], np.zeros((0, 2), int))) == []

    @pytest.mark.parametrize("n", [2, 8, 40])
    @pytest.mark.parametrize(
        ("number_format", "noise"),
        [("float32", 3e-7), ("float16", 2.0**-12), ("bfloat16", 2.0**-9), ("float64", 1e-15)],
    )
    def test_rounding_is_no_variation(self, n, number_format, noise):
        # one token again and again, off by what the order of sums and the number format explain
        rng = np.random.default_rng(n)
        still = rng.normal(size=8) * (1 + noise * rng.uniform(-1, 1, size=(n, 8)))
        varying = rng.normal(size=(n, 8))
        outputs = np.stack([still, varying, varying + still], axis=1)
        outputs = outputs.astype(np.float64 if number_format == "float64" else np.float32)
        assert (outputs[1:, 0] != outputs[0, 0]).any()
        pairs = {(a, b): pair for a, b, pair in compare_all(outputs, number_format)}
        assert pairs[0, 1].cka is None and pairs[0, 2].cka is None
        assert pairs[1, 2].cka == pytest.approx(1.0, rel=1e-2)
        experts = np.tile([4, 1], (n, 1))
        ((_, _, chosen),) = compare_chosen(outputs[:, :2], experts, number_format)
        assert chosen.cka is None and chosen.cosine is not None

    @pytest.mark.parametrize(("number_format", "size"), [("float32", 1e-4), ("bfloat16", 0.02)])
    def test_a_small_variation_is_one(self, number_format, size):
        rng = np.random.default_rng(5)
        moves = rng.normal(size=(30, 8))
        outputs = np.stack([1 + size * moves, moves], axis=1).astype(np.float32)
        pair: PairOverlap
        ((_, _, pair),) = compare_all(outputs, number_format)
        assert pair.cka == pytest.approx(1.0, abs=1e-5)

    def test_the_lower_number_comes_first_whatever_the_rank(self):
        outputs = np.array([[[1.0, 0.0], [0.0, 5.0]], [[0.0, 7.0], [3.0, 0.0]]])
        ((a, b, pair),) = compare_chosen(outputs, np.array([[2, 6], [6, 2]]))
        assert (a, b, pair.norm_a, pair.norm_b) == (2, 6, 2.0, 6.0)


@pytest.mark.model
def test_the_embedded_model_agrees_with_the_plain_computation(mini_store: Path) -> None:
    with moedb.open(mini_store) as database:
        result = database.query("output-overlap", layer=4)
        wanted = expected(database, result.provenance.runs[0].run_id, 4, every=False)
        assert len(wanted) > 500
        frame = result.df()
        columns = ["layer", "expert_a", "expert_b", "n_tokens", "cosine", "norm_a", "norm_b"]
        assert_same(frame[columns], wanted[columns])
        assert frame["cka"].isna().equals(wanted["cka"].isna())
        # of two or three tokens the plain kernels leave rounding only
        sure = wanted["n_tokens"] > 8
        np.testing.assert_allclose(frame["cka"][sure], wanted["cka"][sure], rtol=1e-7)
