"""What a CIFAR capture stores, against a plain forward pass and numpy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moedb.capture.jobs.cifar_moe.checkpoint import load_cifar_moe
from moedb.capture.jobs.cifar_moe.config import CLASSES
from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset, find_trials
from moedb.capture.jobs.cifar_moe.images import ImageSet
from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture
from moedb.capture.pipeline.missing_units import CaptureOutcome
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.errors import ModelError, ModelNotFoundError, UsageError
from moedb.queries.database import Database, open_database
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.contents import run_contents
from tests.support.models.cifar_images import make_image_sets
from tests.support.models.cifar_store import BASE, DRAWS, N_TEST, SEED, SHORT, CifarStore

BATCH = 250


@pytest.fixture(scope="module")
def database(cifar_store: CifarStore) -> Database:
    return open_database(cifar_store.folder)


@pytest.fixture(scope="module", params=["weighted", "unweighted"])
def gate(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(database: Database, gate: str) -> str:
    """The run of the base model with 3 experts, trial 0."""
    [[found]] = database.sql(
        "select run_id from trials "
        "where variant = $variant and experts = 3 and trial = 0 and gate = $gate",
        {"variant": BASE, "gate": gate},
    ).fetchall()
    return str(found)


class Plain:
    """The same model by a plain forward pass over all images, and numpy."""

    def __init__(self, folder: Path, images: ImageSet, gate: str) -> None:
        model, _ = load_cifar_moe(folder)
        with torch.no_grad():
            parts = [model(part) for part in torch.from_numpy(images.images).split(BATCH)]
            features = torch.cat(
                [model.features(part) for part in torch.from_numpy(images.images).split(BATCH)]
            )
            self.every = torch.stack([e(features) for e in model.moe.experts], dim=1).numpy()
        self.logits = torch.cat([logits for logits, _ in parts]).numpy()
        self.scores = torch.cat([routing.logits for _, routing in parts]).numpy()
        self.experts = torch.cat([routing.expert_ids for _, routing in parts]).numpy()
        exponentials = np.exp(self.scores.astype(np.float64))
        self.probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        self.weights = self.probabilities.max(axis=1)
        if gate == "unweighted":
            self.weights = np.ones(len(images))
        self.head = model.classifier.weight.detach().numpy(), model.classifier.bias.detach().numpy()
        self.labels = images.labels
        self.model = model

    def accuracy(self, outputs: np.ndarray, weights: np.ndarray) -> float:
        logits = (outputs * weights[:, None]) @ self.head[0].T + self.head[1]
        return float((logits.argmax(axis=1) == self.labels).mean())

    def shares(self) -> np.ndarray:
        """(class, expert)."""
        n = self.scores.shape[1]
        return np.stack(
            [
                np.bincount(self.experts[self.labels == c], minlength=n) / (self.labels == c).sum()
                for c in range(len(CLASSES))
            ]
        )


@pytest.fixture(scope="module")
def plain(cifar_store: CifarStore, gate: str) -> Plain:
    trained = {"weighted": "3", "unweighted": "3-unweighted-count-0.01"}[gate]
    return Plain(cifar_store.models / f"cifar-moe-base-{trained}-trial-0", cifar_store.test, gate)


def test_routing_and_answers_are_a_plain_forward_s(
    database: Database, run: str, plain: Plain
) -> None:
    rows = database.sql(
        "select expert, weight, predicted, target from routing "
        "join tokens using (run_id, token_idx) "
        "join predictions using (run_id, example_id) "
        "where run_id = $run and condition_id = 0 order by example_id",
        {"run": run},
    ).df()
    assert rows["expert"].tolist() == plain.experts.tolist()
    np.testing.assert_allclose(rows["weight"], plain.weights, rtol=1e-5)
    # the stored weight is what multiplies: the answers follow from it and the expert's output
    outputs = plain.every[np.arange(N_TEST), plain.experts]
    assert plain.accuracy(outputs, rows["weight"].to_numpy()) == pytest.approx(
        (plain.logits.argmax(axis=1) == plain.labels).mean(), abs=1.5 / N_TEST
    )
    assert rows["predicted"].tolist() == [CLASSES[c] for c in plain.logits.argmax(axis=1)]
    assert rows["target"].tolist() == [CLASSES[c] for c in plain.labels]


def test_the_arrays_hold_what_every_expert_says(database: Database, run: str, plain: Plain) -> None:
    import zarr

    group = zarr.open_group(database.snapshot.run(run).layout.arrays, mode="r")
    rows = database.sql(
        "select array_row from tokens where run_id = $run order by example_id", {"run": run}
    ).df()["array_row"]
    every = np.asarray(group["all_expert_outputs/4"])[rows]
    chosen = np.asarray(group["expert_outputs/4"])[rows]
    np.testing.assert_allclose(every, plain.every, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(chosen[:, 0], every[np.arange(N_TEST), plain.experts])
    np.testing.assert_allclose(
        np.asarray(group["router_logits/4"])[rows], plain.scores, rtol=1e-4, atol=1e-5
    )


def test_the_images_are_kept_as_the_model_was_given_them(
    database: Database, cifar_store: CifarStore, run: str
) -> None:
    import zarr

    stored = zarr.open_array(database.snapshot.run(run).layout.arrays / "images" / "0", mode="r")
    assert stored.attrs["shape"] == [32, 32, 3] and stored.metadata.dimension_names[1] == "pixel"
    rows = database.sql(
        "select array_row, image(run_id, array_row) as pixels from tokens order by example_id",
        run=run,
    ).df()
    expected = cifar_store.test.images.reshape(N_TEST, -1)
    np.testing.assert_array_equal(np.asarray(stored)[rows["array_row"]], expected)
    np.testing.assert_array_equal(np.stack(rows["pixels"]), expected)
    manifest = database.snapshot.run(run).manifest
    assert manifest.image_shape == (32, 32, 3) and manifest.arrays["images"] == (0,)


def test_images_are_left_out_where_arrays_are_chosen(
    cifar_store: CifarStore, tmp_path: Path
) -> None:
    dataset = cifar_dataset(cifar_store.test, n=20, draws=1, seed=0)
    [trial] = find_trials([cifar_store.models / "cifar-moe-short-2-trial-0"])
    options = CaptureOptions(str(trial), arrays=("router_logits", "router_input"))
    planned = plan_cifar_capture(options, dataset)
    capture(planned, tmp_path / "without")
    text = next((tmp_path / "without" / "runs").glob("*/run.json")).read_text()
    assert "image" not in text.replace("test images", "")
    kept = plan_cifar_capture(CaptureOptions(str(trial), arrays=("images",)), dataset)
    assert kept.arrays == {"images": (0,)}
    # 32 x 32 pixels of three channels, four bytes each
    assert kept.estimate.array_bytes == {"images": kept.estimate.n_rows * 3072 * 4}
    capture(kept, tmp_path / "alone")
    verify_run(take_snapshot(tmp_path / "alone").run(kept.run_id))


def accuracies(database: Database, run: str, kind: str) -> list[float]:
    return [
        row[0]
        for row in database.sql(
            "select avg(correct) from predictions join conditions using (run_id, condition_id) "
            "where run_id = $run and kind = $kind group by condition_id order by condition_id",
            {"run": run, "kind": kind},
        ).fetchall()
    ]


def test_random_routing_is_what_numpy_draws(
    database: Database, run: str, plain: Plain, gate: str
) -> None:
    images = np.arange(N_TEST)
    kept, reweighted = [], []
    for draw in range(DRAWS):
        drawn = np.random.default_rng([SEED, draw]).integers(3, size=N_TEST)
        outputs = plain.every[images, drawn]
        kept.append(plain.accuracy(outputs, plain.weights))
        reweighted.append(plain.accuracy(outputs, plain.probabilities[images, drawn]))
    # an image on the edge between two classes may fall to either side by rounding
    edge = pytest.approx(kept, abs=1.5 / N_TEST)
    assert accuracies(database, run, "random-routing") == edge
    if gate == "unweighted":  # there is no other weight to draw with
        reweighted = []
    assert accuracies(database, run, "random-routing-reweighted") == pytest.approx(
        reweighted, abs=1.5 / N_TEST
    )


def test_forced_experts_get_every_image(database: Database, run: str, plain: Plain) -> None:
    expected = [plain.accuracy(plain.every[:, e], plain.weights) for e in range(3)]
    assert accuracies(database, run, "force-experts") == pytest.approx(expected, abs=1.5 / N_TEST)


def test_untrained_experts_are_seeded_and_near_chance(
    database: Database, run: str, cifar_store: CifarStore
) -> None:
    found = accuracies(database, run, "reinitialize-experts")
    assert len(found) == DRAWS
    assert len(set(found)) > 1  # each draw makes other experts
    assert np.mean(found) < 0.35


def test_queries_agree_with_numpy(database: Database, run: str, plain: Plain, gate: str) -> None:
    shares = plain.shares()
    order = {name: index for index, name in enumerate(CLASSES)}

    def matrix(rows: pd.DataFrame, value: str) -> np.ndarray:
        found = np.full((10, 10), np.nan)
        for _, row in rows.iterrows():
            found[order[row["class_a"]], order[row["class_b"]]] = row[value]
        return found

    by_class = database.query("routing-by-class", key="class", run=run).df()
    for _, row in by_class.iterrows():
        assert row["share"] == pytest.approx(shares[order[row["value"]], row["expert"]], abs=1e-12)

    chosen = {"variant": SHORT, "experts": 2}
    short = database.query("class-covariance", **chosen).df()
    assert short["n_trials"].tolist() == [1] * 100
    [[single]] = database.sql(
        "select run_id from trials where variant = $variant", {"variant": SHORT}
    ).fetchall()
    rows = database.query("routing-by-class", key="class", run=single).df()
    grid = rows.pivot(index="value", columns="expert", values="share").loc[list(CLASSES)]
    expected = np.cov(grid.to_numpy(), bias=True)
    np.testing.assert_allclose(matrix(short, "covariance"), expected, atol=1e-12)

    chosen = {"variant": BASE, "experts": 3, "gate": gate}
    table = database.query("router-ablation", level="trial", **chosen).df()
    assert len(table) == {"weighted": 2, "unweighted": 1}[gate]
    first = table[table["trial"] == 0].iloc[0]
    assert first["learned"] == pytest.approx((plain.logits.argmax(axis=1) == plain.labels).mean())
    assert first["random"] == pytest.approx(np.mean(accuracies(database, run, "random-routing")))


def test_a_run_is_sound_and_labelled(cifar_store: CifarStore, run: str, gate: str) -> None:
    snapshot = take_snapshot(cifar_store.folder)
    assert verify_run(snapshot.run(run)).n_layers_summed == 1
    training = {"weighted": ("1e-05", "mean"), "unweighted": ("0.01", "count")}[gate]
    rows = open_database(cifar_store.folder).sql(
        "select key, value from run_labels where run_id = $run order by key", {"run": run}
    )
    assert [tuple(row) for row in rows.fetchall()] == [
        ("aux_coefficient", training[0]),
        ("balance", training[1]),
        ("experts", "3"),
        ("gate", gate),
        ("seed", "0"),
        ("trial", "0"),
        ("variant", BASE),
    ]


def test_trials_trained_otherwise_are_not_averaged(database: Database) -> None:
    table = database.query("router-ablation", variant=BASE, experts=3).df()
    assert table[["gate", "balance", "aux_coefficient", "n_trials"]].values.tolist() == [
        ["unweighted", "count", 1e-2, 1],
        ["weighted", "mean", 1e-5, 2],
    ]
    for name in ("class-correlation", "routing-by-class-over-trials"):
        rows = database.query(name, variant=BASE, experts=3, gate="weighted").df()
        assert set(rows["n_trials"]) == {2}


def test_a_model_of_an_earlier_version_is_weighted_and_mean(
    tmp_path: Path, cifar_store: CifarStore
) -> None:
    import json
    import shutil

    folder = tmp_path / "earlier"
    shutil.copytree(cifar_store.models / "cifar-moe-base-3-trial-0", folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ("gate", "balance", "aux_coefficient", "epochs", "augmentation"):
        del config[key]
    path.write_text(json.dumps(config))
    summary_path = folder / "training.json"
    summary = json.loads(summary_path.read_text())
    del summary["config"]["balance"], summary["config"]["model"]["gate"]
    summary["config"]["aux_coefficient"] = 0.1
    summary_path.write_text(json.dumps(summary))
    dataset = cifar_dataset(cifar_store.test, n=20, draws=1, seed=0)

    def planned() -> dict[str, str]:
        return dict(plan_cifar_capture(CaptureOptions(str(folder)), dataset).run_labels)

    labels = planned()
    assert (labels["gate"], labels["balance"]) == ("weighted", "mean")
    assert (labels["aux_coefficient"], labels["variant"]) == ("0.1", BASE)
    del summary["config"]["aux_coefficient"]
    for damaged in (summary, []):
        summary_path.write_text(json.dumps(damaged))
        with pytest.raises(ModelError, match=r"training\.json: does not say how the model was"):
            planned()
    path.write_text(json.dumps({**config, "aux_coefficient": 1e-5, "balance": "most"}))
    with pytest.raises(ModelError, match=r"config\.json: balance: Input should be 'mean', 'count'"):
        planned()
    path.write_text(json.dumps({**config, "gate": "shut"}))
    with pytest.raises(ModelError, match=r"config\.json: gate: Input should be 'weighted' or"):
        planned()


@pytest.fixture(scope="module")
def many() -> ImageSet:
    """More images than a unit holds."""
    return make_image_sets(10, 1100, seed=5)[1]


def capture_many(
    store: Path, cifar_store: CifarStore, many: ImageSet, **options: Any
) -> CaptureOutcome:
    dataset = cifar_dataset(many, n=None, draws=1, seed=0)
    folder = cifar_store.models / "cifar-moe-base-2-trial-0"
    settings = {"model": str(folder), "batch_size": BATCH, **options}
    return capture(plan_cifar_capture(CaptureOptions(**settings), dataset), store)


def test_an_interrupted_capture_resumes(
    tmp_path: Path, cifar_store: CifarStore, many: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = capture_many(tmp_path / "whole", cifar_store, many)
    assert whole.units_now == 2
    commit: Callable[..., Any] = RunWriter.commit_unit

    def fail_second(self: RunWriter, unit: int, *rest: Any) -> Any:
        if unit == 1:
            raise RuntimeError("pulled the plug")
        return commit(self, unit, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "commit_unit", fail_second)
        with pytest.raises(RuntimeError, match="plug"):
            capture_many(tmp_path / "cut", cifar_store, many)
    resumed = capture_many(tmp_path / "cut", cifar_store, many)
    assert (resumed.run_id, resumed.units_before, resumed.units_now) == (whole.run_id, 1, 1)
    assert capture_many(tmp_path / "cut", cifar_store, many).was_complete
    cut, whole_contents = (run_contents(tmp_path / name, whole.run_id) for name in ("cut", "whole"))
    assert cut == whole_contents


def test_another_seed_or_number_of_draws_is_another_run(cifar_store: CifarStore) -> None:
    options = CaptureOptions(model=str(cifar_store.models / "cifar-moe-base-2-trial-0"))

    def run_id(**settings: int) -> str:
        dataset = cifar_dataset(cifar_store.test, **{"n": 50, "draws": 2, "seed": 0, **settings})
        return plan_cifar_capture(options, dataset).run_id

    assert len({run_id(), run_id(seed=1), run_id(draws=3), run_id(n=40)}) == 4
    assert run_id() == run_id()


def test_bad_choices_are_refused(
    tmp_path: Path, cifar_store: CifarStore, random_model: Path
) -> None:
    dataset = cifar_dataset(cifar_store.test, n=20, draws=1, seed=0)
    folder = str(cifar_store.models / "cifar-moe-base-2-trial-0")

    def plan(**options: Any) -> None:
        plan_cifar_capture(CaptureOptions(**{"model": folder, **options}), dataset)

    with pytest.raises(UsageError, match="float32"):
        plan(dtype="bfloat16")
    with pytest.raises(UsageError, match="gives no shared_outputs; it gives router_logits"):
        plan(arrays=("shared_outputs",))
    with pytest.raises(UsageError, match="no MoE block at"):
        plan(layers="0")
    with pytest.raises(ModelError, match="qwen2_moe"):
        plan(model=str(random_model))
    with pytest.raises(ModelError, match=r"no config\.json"):
        plan(model=str(tmp_path))
    with pytest.raises(UsageError, match="has 400 images"):
        cifar_dataset(cifar_store.test, n=N_TEST + 1, draws=1, seed=0)
    with pytest.raises(UsageError, match="--draws 0"):
        cifar_dataset(cifar_store.test, n=None, draws=0, seed=0)


def test_trials_are_found_by_folder_and_by_folder_of_them(
    tmp_path: Path, cifar_store: CifarStore
) -> None:
    everything = find_trials([cifar_store.models])
    assert len(everything) == 6
    one = cifar_store.models / "cifar-moe-base-2-trial-1"
    assert find_trials([one]) == [one]
    assert find_trials([one, cifar_store.models]) == [one, *(f for f in everything if f != one)]
    with pytest.raises(ModelNotFoundError, match="holds no trained CIFAR MoE"):
        find_trials([tmp_path])
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        find_trials([tmp_path / "nowhere"])
