"""Matching the experts of trials, and the analysis that rests on it."""

import json
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, sem
from scipy.stats import t as student

import moedb
from moedb.cli import run_cli
from moedb.errors import ParameterError, QueryNotFoundError, UsageError
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.analyses.routing_over_trials import match_experts, number_experts
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.database import Database
from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass

CLASSES = ("airplane", "bird", "cat")
LAYER = 3
# (variant, experts, trial, created at, gate): the one of 3 experts was captured twice, and the last
# two are trained otherwise than the first of the base model, whose runs have no label that says how
TRIALS = (
    ("base", 2, 0, "2026-01-01"),
    ("base", 2, 1, "2026-01-02"),
    ("base", 2, 2, "2026-01-03"),
    ("short", 2, 0, "2026-01-04"),
    ("base", 3, 0, "2026-01-05"),
    ("base", 3, 0, "2026-01-06"),
    ("base", 2, 0, "2026-01-07", "unweighted"),
    ("base", 2, 1, "2026-01-08", "unweighted"),
)


def images(trial: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class of each image, its expert among three, and whether it is a corrupted one."""
    rng = np.random.default_rng([5, trial])
    classes = rng.integers(0, len(CLASSES), 60)
    experts = np.where(rng.random(60) < 0.8, classes, rng.integers(0, 3, 60))
    return classes, (experts + trial) % 3, rng.random(60) < 0.1


def write_trial(
    store: Path,
    number: int,
    variant: str,
    experts: int,
    trial: int,
    at: str,
    gate: str | None = None,
) -> None:
    classes, chosen, corrupted = images(number)
    n = len(classes)
    manifest = RunManifest(
        run_id=f"cifar-moe-{number:010d}",
        row={
            "job": "cifar-moe",
            "model": f"{variant}-{experts}-{trial}",
            "model_sha256": "ab" * 32,
            "architecture": "CifarMoE",
            "dataset": "cifar10",
            "dataset_sha256": "cd" * 32,
            "n_examples": n,
            "n_tokens": n,
            "d_model": 8,
            "dtype": "float32",
            "seed": 0,
            "created_at": f"{at}T00:00:00+00:00",
            "moedb_version": "0.1.0",
            "config": "{}",
            "versions": "{}",
        },
        unit_rows=1024,
        units=(UnitRange(0, n, n, 0),),
        layers=(
            {
                "layer": LAYER,
                "module": "moe",
                "n_experts": experts,
                "top_k": 1,
                "d_expert": 4,
                "has_shared_expert": 0,
                "norm_topk_prob": 0,
                "scoring": "softmax",
            },
        ),
        arrays={},
    )
    writer = RunWriter(store, manifest)
    labels = {"variant": variant, "experts": str(experts), "trial": str(trial)}
    if gate is not None:
        labels |= {"gate": gate, "balance": "count", "aux_coefficient": "1e-05"}
    writer.begin({"run_labels": {"key": list(labels), "value": list(labels.values())}})
    numbers = np.arange(n)
    tables = {
        "examples": {
            "example_id": numbers,
            "split": np.where(corrupted, "corrupted", "test"),
            "text": [""] * n,
            "n_tokens": np.ones(n, int),
        },
        "example_labels": {
            "example_id": numbers,
            "key": ["class"] * n,
            "value": [CLASSES[c] for c in classes],
        },
        "tokens": {
            "token_idx": numbers,
            "example_id": numbers,
            "position": np.zeros(n, int),
            "token_id": [None] * n,
            "token": [None] * n,
            "next_logprob": [None] * n,
            "array_row": [None] * n,
        },
        "routing": {
            "token_idx": numbers,
            "layer": np.full(n, LAYER),
            "rank": np.zeros(n, int),
            "expert": chosen % experts,
            "weight": np.ones(n),
            "output_norm": np.ones(n),
        },
    }
    writer.commit_unit(0, with_router_mass(tables), {})
    writer.finish()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trials") / "store"
    for number, settings in enumerate(TRIALS):
        write_trial(folder, number, *settings)
    return folder


@pytest.fixture(scope="module")
def db(store: Path) -> Database:
    return moedb.open(store)


def shares_of(number: int, n_experts: int, split: str | None = None) -> np.ndarray:
    """(class, expert): the shares of a trial, computed without the store."""
    classes, chosen, corrupted = images(number)
    counted = np.zeros((len(CLASSES), n_experts))
    for one, expert, left_out in zip(classes, chosen, corrupted, strict=True):
        if split == "all" or not left_out:
            counted[one, expert % n_experts] += 1
    return counted / counted.sum(axis=1, keepdims=True)


def agreement(trials: list[np.ndarray]) -> float:
    """The products of shares, summed over the pairs of trials."""
    return sum((a * b).sum() for i, a in enumerate(trials) for b in trials[:i])


def apply(shares: list[np.ndarray], orders: list[np.ndarray]) -> list[np.ndarray]:
    return [trial[:, order] for trial, order in zip(shares, orders, strict=True)]


class TestMatching:
    @pytest.mark.parametrize("seed", range(8))
    def test_two_trials_match_as_the_best_of_all_permutations(self, seed):
        rng = np.random.default_rng(seed)
        shares = [rng.dirichlet(np.ones(5), 10) for _ in range(2)]
        orders = match_experts(shares)
        assert orders[0].tolist() == list(range(5))
        first, second = shares
        best = max(permutations(range(5)), key=lambda p: (first * second[:, list(p)]).sum())
        nearest = min(permutations(range(5)), key=lambda p: ((first - second[:, p]) ** 2).sum())
        assert tuple(orders[1]) == best == nearest

    @pytest.mark.parametrize("seed", range(8))
    def test_of_several_trials_none_can_be_aligned_better_to_the_others(self, seed):
        rng = np.random.default_rng(seed)
        shares = [rng.dirichlet(np.full(4, 0.5), 6) for _ in range(5)]
        aligned = apply(shares, match_experts(shares))
        reached = agreement(aligned)
        for number, trial in enumerate(shares):
            for order in permutations(range(4)):
                moved = [*aligned[:number], trial[:, order], *aligned[number + 1 :]]
                assert agreement(moved) <= reached + 1e-9

    @pytest.mark.parametrize("seed", range(4))
    def test_three_trials_come_close_to_the_best_of_all_permutations(self, seed):
        rng = np.random.default_rng(seed)
        shares = [rng.dirichlet(np.full(3, 0.5), 4) for _ in range(3)]
        reached = agreement(apply(shares, match_experts(shares)))
        ways = list(permutations(range(3)))
        best = max(
            agreement([shares[0], shares[1][:, a], shares[2][:, b]]) for a, b in product(ways, ways)
        )
        assert best * 0.97 <= reached <= best + 1e-12

    @pytest.mark.parametrize("noise", [0.0, 0.02])
    def test_planted_permutations_are_found(self, noise):
        rng = np.random.default_rng(3)
        planted = rng.dirichlet(np.full(6, 0.3), 10)
        hidden = [rng.permutation(6) for _ in range(7)]
        shares = [planted[:, order] + noise * rng.random((10, 6)) for order in hidden]
        for order, found in zip(hidden, match_experts(shares), strict=True):
            np.testing.assert_array_equal(order[found], hidden[0])

    def test_equally_good_orders_come_to_an_end(self):
        for orders in (match_experts([np.full((3, 4), 0.25)] * 5), match_experts([np.eye(3)])):
            assert all(order.tolist() == list(range(len(order))) for order in orders)

    def test_numbers_go_by_the_classes_in_turn(self):
        shares = np.array([[0.1, 0.2, 0.1, 0.6], [0.0, 0.3, 0.2, 0.5]])
        assert number_experts(shares).tolist() == [3, 1, 0, 2]
        assert number_experts(np.full((2, 3), 1 / 3)).tolist() == [0, 1, 2]
        rng = np.random.default_rng(0)
        shares, moved = rng.random((5, 9)), rng.permutation(9)
        renumbered = shares[:, moved][:, number_experts(shares[:, moved])]
        np.testing.assert_array_equal(renumbered, shares[:, number_experts(shares)])


def expected_rows(numbers: list[int], n_experts: int, split: str | None = None) -> pd.DataFrame:
    """The rows of a group, by brute force over the orders of all trials but the first."""
    shares = [shares_of(number, n_experts, split) for number in numbers]
    ways = product(permutations(range(n_experts)), repeat=len(shares) - 1)
    best = max(
        ([shares[0], *(t[:, w] for t, w in zip(shares[1:], way, strict=True))] for way in ways),
        key=agreement,
    )
    stacked = np.stack(best)
    stacked = stacked[..., number_experts(stacked.mean(axis=0))]
    rows = [
        (value, expert, len(shares), *_of_trials(stacked[:, c, expert]))
        for c, value in enumerate(CLASSES)
        for expert in range(n_experts)
    ]
    names = ["value", "expert", "n_trials", "share", "sd", "lowest", "highest"]
    return pd.DataFrame(rows, columns=names)


def _of_trials(values: np.ndarray) -> tuple[float, float, float, float]:
    sd = values.std(ddof=1) if len(values) > 1 else float("nan")
    return values.mean(), sd, values.min(), values.max()


class TestRoutingByClassOverTrials:
    @pytest.mark.parametrize(
        ("variant", "experts", "gate", "numbers", "split"),
        [
            ("base", 2, "weighted", [0, 1, 2], None),
            ("base", 2, "weighted", [0, 1, 2], "all"),
            ("base", 2, "unweighted", [6, 7], None),
            ("short", 2, None, [3], None),
            ("base", 3, None, [5], None),
        ],
    )
    def test_agrees_with_brute_force(self, db, variant, experts, gate, numbers, split):
        result = db.query(
            "routing-by-class-over-trials",
            variant=variant,
            experts=experts,
            gate=gate,
            split=split,
        )
        frame = result.df()
        expected = expected_rows(numbers, experts, split)
        pd.testing.assert_frame_equal(frame[expected.columns], expected, check_dtype=False)
        assert set(frame["variant"]) == {variant} and set(frame["layer"]) == {LAYER}
        runs = [f"cifar-moe-{number:010d}" for number in numbers]
        assert [run.run_id for run in result.provenance.runs] == runs
        n_tokens = sum(len(c) if split == "all" else (~x).sum() for c, _, x in map(images, numbers))
        assert frame["n_decisions"].sum() == n_tokens
        assert frame.drop_duplicates("value")["n_tokens"].sum() == n_tokens
        assert (
            frame.groupby("value")["n_decisions"].sum()
            == frame.groupby("value")["n_tokens"].first()
        ).all()

    def test_every_group_is_there_and_matching_undoes_the_orders(self, db):
        frame = db.query("routing-by-class-over-trials").df()
        training = ["variant", "experts", "gate", "balance", "aux_coefficient"]
        groups = frame[training].drop_duplicates().fillna(-1).itertuples(index=False)
        assert [tuple(group) for group in groups] == [
            ("base", 2, "unweighted", "count", 1e-5),
            ("base", 2, "weighted", "mean", -1),
            ("base", 3, "weighted", "mean", -1),
            ("short", 2, "weighted", "mean", -1),
        ]
        sums = frame.groupby([*training, "value"], dropna=False)["share"].sum()
        np.testing.assert_allclose(sums, 1.0)
        assert frame.query("variant == 'base' and experts == 2")["sd"].notna().all()

    def test_columns_and_types_are_those_declared(self, db):
        analysis = ANALYSES["routing-by-class-over-trials"]
        result = db.query(analysis.name)
        assert result.columns == list(analysis.column_names)
        assert result.types == [column.sql_type for column in analysis.columns]
        assert db.query("routing_by_class_over_trials").fetchmany(1)

    def test_bad_requests(self, db):
        with pytest.raises(ParameterError, match="did you mean variant"):
            db.query("routing-by-class-over-trials", varaint="base")
        with pytest.raises(ParameterError, match="one of weighted, unweighted"):
            db.query("routing-by-class-over-trials", gate="none")
        with pytest.raises(ParameterError, match="an integer"):
            db.query("routing-by-class-over-trials", experts="two")
        for given, message in (
            ({"key": "colour"}, r"no label key 'colour' in the 7 trials; valid: aux_coefficient, "),
            ({"layer": 7}, rf"no MoE layer 7 in the 7 trials; valid: {LAYER}"),
            (
                {"variant": "bsae"},
                r"no trial with variant 'bsae'; did you mean base\? valid: base",
            ),
            (
                {"variant": "short", "experts": 3},
                r"no trial with variant 'short' and experts 3; valid: 2",
            ),
            ({"split": "train"}, r"no split 'train' in the 7 trials"),
            ({"aux_coefficient": 0.5}, r"no trial with aux_coefficient 0.5; valid: 1e-05"),
            ({"balance": "sum"}, r"no trial with balance 'sum'; valid: count, mean"),
        ):
            with pytest.raises(ParameterError, match=message):
                db.query("routing-by-class-over-trials", **given)
        with pytest.raises(QueryNotFoundError, match="did you mean routing-by-class-over-trials"):
            db.query("routing-by-class-over-trial")

    def test_a_class_that_a_trial_lacks_counts_in_the_others(self):
        from moedb.queries.analyses.routing_over_trials import _matched_rows

        rows = [
            ("a", "x", 0, 3, 4), ("a", "x", 1, 1, 4), ("a", "y", 0, 0, 2), ("a", "y", 1, 2, 2),
            ("b", "x", 0, 0, 6), ("b", "x", 1, 6, 6),
        ]  # fmt: skip
        frame = pd.DataFrame(
            rows, columns=["run_id", "value", "expert", "n_decisions", "n_tokens"]
        ).assign(
            variant="", experts=2, gate="weighted", balance="mean", aux_coefficient=None, layer=0
        )
        found = [row[6:] for row in _matched_rows(frame)]
        assert [row[:4] for row in found] == [
            ("x", 0, 2, 0.875), ("x", 1, 2, 0.125), ("y", 0, 1, 0.0), ("y", 1, 1, 1.0),
        ]  # fmt: skip
        assert [row[4] is None for row in found] == [False, False, True, True]
        assert [row[7:] for row in found] == [(9, 10), (1, 10), (0, 2), (2, 2)]


class TestQueriesOverTrials:
    @pytest.mark.parametrize("name", ["class-correlation", "class-consistency"])
    def test_the_provenance_names_the_trials(self, db, name):
        runs = [run.run_id[-1] for run in db.query(name, variant="base").provenance.runs]
        assert runs == ["6", "7", "0", "1", "2", "5"]
        runs = [run.run_id[-1] for run in db.query(name, gate="unweighted").provenance.runs]
        assert runs == ["6", "7"]
        both = r"no trial with balance 'mean' and aux_coefficient 1e-05; valid: null alone"
        with pytest.raises(ParameterError, match=both):
            db.query(name, aux_coefficient=1e-5, balance="mean")
        result = db.query(name, variant="base", experts=3)
        assert [run.run_id[-1] for run in result.provenance.runs] == ["5"]
        assert "run cifar-moe-0000000005" in result.provenance.footer()

    def test_a_run_that_is_not_named_is_every_trial(self, db):
        result = db.query("expert-accuracy")
        assert result.provenance.parameters["run"] is None
        assert len(result.provenance.runs) == 7
        named = db.query("expert-accuracy", run="cifar-moe-0000000003")
        assert [run.run_id[-1] for run in named.provenance.runs] == ["3"]


class TestIntervals:
    def test_of_a_mean_are_students_t_over_trials(self, db):
        given = {"variant": "base", "experts": 2, "gate": "weighted"}
        found = db.resampled().query("class-covariance", **given)
        assert "95 % intervals: Student's t over the trials of each row" in found.footer
        rows = found.df().set_index(["class_a", "class_b"])
        matrices = []
        for number in (0, 1, 2):
            matrices.append(np.cov(shares_of(number, 2, "all"), ddof=0))
        for (a, b), row in rows.iterrows():
            values = [matrix[CLASSES.index(a), CLASSES.index(b)] for matrix in matrices]
            assert row["covariance"] == pytest.approx(np.mean(values))
            if a == b:
                assert np.isnan(row["covariance_low"])
                continue
            wanted = student.interval(0.95, 2, np.mean(values), sem(values))
            assert tuple(row[["covariance_low", "covariance_high"]]) == pytest.approx(wanted)

    def test_stay_between_what_is_possible_and_are_missing_for_one_trial(self, db):
        rows = db.resampled().query("routing-by-class-over-trials", variant="base").df()
        one = rows[rows["n_trials"] == 1]
        assert len(one)
        assert one["share_low"].isna().all()
        several = rows[(rows["n_trials"] > 1) & (rows["sd"] > 0)]
        assert (several["share_low"] >= 0).all()
        assert (several["share_high"] <= 1).all()
        assert (several["share_low"] <= several["share"]).all()
        assert (several["share"] <= several["share_high"]).all()

    def test_of_a_share_of_trials_are_wilsons(self, db):
        rows = db.resampled().query("class-consistency", variant="base", experts=2).df()
        own = rows["class_a"] == rows["class_b"]
        assert rows.loc[own, "share_low"].isna().all()
        for row in rows[~own].itertuples():
            wanted = binomtest(row.n_together, row.n_trials).proportion_ci(method="wilson")
            assert (row.share_low, row.share_high) == pytest.approx(wanted)

    def test_nothing_is_drawn(self, db):
        for settings in (Resampling("percentile"), Resampling(cluster="class")):
            with pytest.raises(UsageError, match="nothing is drawn"):
                db.resampled(settings).query("class-correlation")


class TestCommands:
    def test_query_export_and_plot(self, store, tmp_path, capfd):
        name = "routing-by-class-over-trials"
        group = ["-p", "variant", "base", "-p", "experts", "2", "--store", str(store)]
        chosen = [*group, "-p", "gate", "weighted"]
        assert run_cli(["query", name, *chosen, "--format", "csv"]) == 0
        out, err = capfd.readouterr()
        assert out.splitlines()[0] == ",".join(ANALYSES[name].column_names)
        assert len(out.splitlines()) == 1 + 3 * 2 and "cifar-moe-0000000001" in err
        table = tmp_path / "t.csv"
        pivot = ["--pivot", "value", "expert", "share", "-o", str(table)]
        assert run_cli(["export", name, *chosen, *pivot]) == 0
        assert table.read_text().splitlines()[0] == "value,0,1"
        capfd.readouterr()
        assert run_cli(["export", name, *group, *pivot]) == 2
        assert "more than one" in capfd.readouterr().err
        sidecar = json.loads((tmp_path / "t.csv.provenance.json").read_text())
        assert sidecar["sql"].startswith(
            "-- computed in Python by moedb.queries.analyses.routing_over_trials."
            "routing_by_class_over_trials"
        )
        assert len(sidecar["runs"]) == 3 and sidecar["parameters"]["key"] == "class"
        assert run_cli(["plot", name, *chosen, "-o", str(tmp_path / "t.pdf")]) == 0
        assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")

    def test_list_and_sql(self, capfd):
        assert run_cli(["query", "--format", "csv"]) == 0
        rows = [line.split(",")[:2] for line in capfd.readouterr().out.splitlines()[1:]]
        subjects = list(dict.fromkeys(subject for subject, _ in rows))
        assert rows == sorted(rows, key=lambda row: (subjects.index(row[0]), row[1]))
        assert set(ANALYSES) <= {name for _, name in rows}
        assert run_cli(["query", "output-overlap", "--show-sql"]) == 2
        err = capfd.readouterr().err
        assert "in Python, by moedb.queries.analyses.experts.output_overlap.output_overlap" in err
        assert run_cli(["query", "overlap", "--show-sql"]) == 0
