"""What the page on CIFAR-10 asks in SQL of its own, beside numpy's answers from the tables."""

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from sklearn import metrics

import moedb
from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset
from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.cli import run_cli
from tests.support.models.cifar_store import BASE, DRAWS, SEED, CifarStore

RESULTS = Path(__file__).parents[2] / "docs" / "results"
GROUP = ["variant", "experts", "gate", "balance"]
VEHICLES = ["airplane", "automobile", "ship", "truck"]


@pytest.fixture(scope="module")
def files(cifar_store: CifarStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the study that are no named query's, as JSON."""
    folder = tmp_path_factory.mktemp("cifar")
    told, grid = (
        yaml.safe_load((RESULTS / name).read_text(encoding="utf-8"))
        for name in ("cifar.yaml", "cifar_grid.yaml")
    )
    told["steps"] = [
        step for step in told["steps"] + grid["steps"] if ".sql" in step.get("command", "")
    ]
    assert len(told["steps"]) == len(list((RESULTS / "sql" / "cifar").iterdir()))
    for step in told["steps"]:
        command = step["command"].replace(".md", ".json").replace("${here}", str(RESULTS))
        step["command"] = re.sub(r"--columns \S+|--intervals brackets", "", command)
    (folder / "mine.yaml").write_text(yaml.safe_dump(told))
    chosen = ["--set", f"base={BASE}", "--no-rehearsal"]
    of = ["--store", str(cifar_store.folder), "-o", str(folder / "files")]
    assert run_cli(["study", str(folder / "mine.yaml"), *chosen, *of]) == 0
    return folder / "files"


@pytest.fixture(scope="module")
def decisions(cifar_store: CifarStore) -> pd.DataFrame:
    """The expert and the class of each image in each trial."""
    with moedb.open(cifar_store.folder) as db:
        return db.sql(
            "select t.*, r.expert, l.value from trials as t join routing as r using (run_id) "
            "join tokens as k using (run_id, token_idx) join example_labels as l "
            "using (run_id, example_id) where l.key = 'class'"
        ).df()


def read(files: Path, name: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((files / f"{name}.json").read_text())).set_index(GROUP)


def of_trials(decisions: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return [(tuple(key[:4]), part) for key, part in decisions.groupby([*GROUP, "trial"])]


def test_evenness(files: Path, decisions: pd.DataFrame) -> None:
    found = read(files, "evenness")
    told: dict[tuple[Any, ...], list[tuple[float, float, float]]] = {}
    for group, part in of_trials(decisions):
        shares = np.bincount(part["expert"], minlength=group[1]) / len(part)
        entropy = -sum(share * np.log2(share) for share in shares if share) / np.log2(group[1])
        told.setdefault(group, []).append((shares.min(), shares.max(), entropy))
    assert set(found.index) == set(told) and len(found) == 4
    for group, trials in told.items():
        row, (least, most, entropy) = found.loc[group], np.array(trials).T
        assert row["n_trials"] == len(trials)
        assert row["smallest_share"] == pytest.approx(least.mean())
        assert row["largest_share"] == pytest.approx(most.mean())
        assert row["n_with_idle"] == sum(least < 0.1 / group[1])
        assert row["normalized_entropy"] == pytest.approx(entropy.mean())
        assert row["lowest_entropy"] == pytest.approx(entropy.min())
        assert row["highest_entropy"] == pytest.approx(entropy.max())


def test_covariances_of_subjects(files: Path, decisions: pd.DataFrame) -> None:
    found = read(files, "subjects")
    told: dict[tuple[Any, ...], list[list[float]]] = {}
    for group, part in of_trials(decisions):
        shares = pd.crosstab(part["value"], part["expert"], normalize="index")
        shares = shares.reindex(columns=range(group[1]), fill_value=0.0)
        matrix = np.cov(shares.to_numpy(), bias=True)
        vehicle = np.isin(shares.index, VEHICLES).astype(int)
        a, b = np.triu_indices(len(shares), k=1)
        both, values = vehicle[a] + vehicle[b], matrix[a, b]
        means = [values[both == n].mean() for n in (2, 0, 1)]
        told.setdefault(group, []).append([*means, np.abs(values).mean()])
    assert set(found.index) == set(told)
    columns = ["vehicles", "animals", "one_of_each", "mean_size"]
    for group, trials in told.items():
        row = found.loc[group]
        assert row[columns].astype(float).to_numpy() == pytest.approx(np.mean(trials, axis=0))
        check_interval(row, "mean_size", [each[3] for each in trials])


def check_interval(
    row: Any, name: str, values: list[float], least: float = -9, most: float = 9
) -> None:
    """Whether a row's interval is Student's t over the values, where they differ."""
    if len(set(np.round(values, 12))) < 2:
        assert pd.isna(row[f"{name}_low"]) and pd.isna(row[f"{name}_high"])
        return
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert row[f"{name}_low"] == pytest.approx(max(low, least), rel=1e-3, abs=1e-4)
    assert row[f"{name}_high"] == pytest.approx(min(high, most), rel=1e-3, abs=1e-4)


def test_sides_of_vehicles_and_animals(files: Path, decisions: pd.DataFrame) -> None:
    found = read(files, "sides")
    told: dict[tuple[Any, ...], list[list[float]]] = {}
    for group, part in of_trials(decisions):
        shares = pd.crosstab(part["value"], part["expert"], normalize="index")
        vehicle = np.isin(shares.index, VEHICLES)
        expert = shares[vehicle].mean().round(12).idxmax()  # the first of equals
        main = shares.idxmax(axis=1)
        together = bool((main[vehicle] == expert).all())
        apart = together and not (main[~vehicle] == expert).any()
        mine, others = shares.loc[vehicle, expert], shares.loc[~vehicle, expert]
        most = shares[~vehicle].mean().max()
        told.setdefault(group, []).append(
            [together, apart, mine.mean(), mine.min(), others.mean(), others.max(), most]
        )
    assert set(found.index) == set(told)
    for group, trials in told.items():
        row, values = found.loc[group], np.array(trials, dtype=float)
        assert (row["n_together"], row["n_apart"]) == tuple(values[:, :2].sum(axis=0))
        means = values[:, [2, 4, 6]].mean(axis=0)
        assert [row["vehicles"], row["animals"], row["most_animals"]] == pytest.approx(list(means))
        check_interval(row, "vehicles", list(values[:, 2]), 0, 1)
        check_interval(row, "animals", list(values[:, 4]), 0, 1)
        assert row["lowest_vehicle"] == pytest.approx(values[:, 3].min())
        assert row["highest_animal"] == pytest.approx(values[:, 5].max())


def sides_of(images: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """What the SQL says of a trial, by the images of each class that either expert gets."""
    told = {"run_id": "a", "variant": "base", "experts": 2, "gate": "weighted", "balance": "sum"}
    told |= {"aux_coefficient": 1e-5, "trial": 0, "layer": 0, "key": "class"}
    rows = [
        told | {"value": value, "expert": expert, "n_decisions": n}
        for value, of_experts in images.items()
        for expert, n in enumerate(of_experts)
    ]
    sql = (RESULTS / "sql" / "cifar" / "sides.sql").read_text(encoding="utf-8")
    with duckdb.connect() as connection:
        connection.register("trial_routing", pd.DataFrame(rows))
        (row,) = connection.sql(sql).df().to_dict("records")
    return row


def test_sides_of_experts_that_get_the_same_are_the_first_ones() -> None:
    """Half of the vehicles each, in shares of which the first expert's add up to 0.5 - 6e-17."""
    images = {"airplane": (1, 9), "automobile": (5, 5), "ship": (7, 3), "truck": (7, 3)}
    row = sides_of(images | {"cat": (4, 6), "dog": (10, 0)})
    assert [row["vehicles"], row["animals"]] == pytest.approx([0.5, 0.7])
    assert (row["lowest_vehicle"], row["highest_animal"]) == (0.1, 1.0)
    assert row["most_animals"] == pytest.approx(0.7)
    assert (row["n_together"], row["n_apart"]) == (0, 0)


def test_sides_that_part() -> None:
    vehicles = dict.fromkeys(VEHICLES, (4, 6))
    apart = sides_of(vehicles | {"cat": (8, 2), "dog": (10, 0)})
    assert (apart["n_together"], apart["n_apart"]) == (1, 1)
    assert [apart["vehicles"], apart["animals"]] == pytest.approx([0.6, 0.1])
    half = sides_of(vehicles | {"cat": (8, 2), "dog": (1, 9)})
    assert (half["n_together"], half["n_apart"]) == (1, 0)


def test_information_of_the_class(files: Path, decisions: pd.DataFrame) -> None:
    found = read(files, "information")
    told: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for group, part in of_trials(decisions):
        bits = metrics.mutual_info_score(part["value"], part["expert"]) / np.log(2)
        entropy = stats.entropy(part["expert"].value_counts(), base=2)
        told.setdefault(group, []).append((bits, bits / entropy))
    assert set(found.index) == set(told)
    for group, trials in told.items():
        row, (bits, shares) = found.loc[group], np.array(trials).T
        assert [row["bits"], row["share"]] == pytest.approx([bits.mean(), shares.mean()])
        check_interval(row, "bits", list(bits), least=0)
        check_interval(row, "share", list(shares), 0, 1)


def test_trainings_side_by_side(
    files: Path, decisions: pd.DataFrame, cifar_store: CifarStore
) -> None:
    with moedb.open(cifar_store.folder) as db:
        answers = db.sql(
            "select run_id, c.kind, p.correct from predictions as p "
            "join conditions as c using (run_id, condition_id)"
        ).df()
    right = answers.groupby(["run_id", "kind"])["correct"].mean().unstack()
    decrease = 100 * (1 - right["random-routing"] / right["none"])
    found = read(files, "grid")
    told: dict[tuple[Any, ...], list[list[float]]] = {}
    for group, part in of_trials(decisions):
        share = np.bincount(part["expert"], minlength=group[1]) / len(part)
        shares = pd.crosstab(part["value"], part["expert"], normalize="index")
        vehicle = np.isin(shares.index, VEHICLES)
        means = shares[vehicle].mean()
        expert = means.round(12).idxmax()
        bits = metrics.mutual_info_score(part["value"], part["expert"]) / np.log(2)
        (run,) = set(part["run_id"])
        sides = means[expert], shares.loc[~vehicle, expert].mean()
        told.setdefault(group, []).append(
            [right["none"][run], share.min(), share.max(), *sides, bits, decrease[run]]
        )
    assert set(found.index) == set(told)
    columns = ["learned", "smallest_share", "largest_share", "vehicles", "animals"]
    for group, trials in told.items():
        row, values = found.loc[group], np.array(trials)
        assert row[[*columns, "bits", "decrease"]].astype(float).to_numpy() == pytest.approx(
            values.mean(axis=0)
        )
        assert row["n_trials"] == len(trials)
        assert row["n_with_idle"] == sum(values[:, 1] < 0.1 / group[1])
        if len(trials) > 1:
            assert [row["bits_sd"], row["decrease_sd"]] == pytest.approx(
                list(values[:, 5:].std(axis=0, ddof=1))
            )


def test_what_experts_can_do(files: Path, decisions: pd.DataFrame, cifar_store: CifarStore) -> None:
    with moedb.open(cifar_store.folder) as db:
        forced = db.sql(
            "select run_id, c.expert, p.target as value, avg(p.correct) as accuracy "
            "from predictions as p join conditions as c using (run_id, condition_id) "
            "where c.kind = 'force-experts' group by all"
        ).df()
    shares = decisions.groupby([*GROUP, "trial", "run_id", "value"])["expert"].value_counts(
        normalize=True
    )
    joined = forced.merge(
        shares.rename("routed").reset_index(), on=["run_id", "value", "expert"], how="left"
    )
    joined["routed"] = joined["routed"].fillna(0)
    trials = decisions.drop_duplicates("run_id").set_index("run_id")
    for column in GROUP:
        joined[column] = joined["run_id"].map(trials[column])
    main = joined[joined["routed"] >= 0.5].groupby(["run_id", "value"])["accuracy"].max()
    joined["main"] = [
        main.get((run, value), np.nan) for run, value in joined[["run_id", "value"]].to_numpy()
    ]
    found = read(files, "ability")
    for group, part in joined.groupby(GROUP):
        row, hardly = found.loc[group], part[part["routed"] < 0.1]
        assert row["any_expert"] == pytest.approx(part["accuracy"].mean())
        assert row["main_expert"] == pytest.approx(
            part.loc[part["routed"] >= 0.5, "accuracy"].mean()
        )
        assert row["n_hardly_chosen"] == len(hardly)
        if len(hardly):
            assert row["hardly_chosen"] == pytest.approx(hardly["accuracy"].mean())
            assert row["main_of_the_same"] == pytest.approx(hardly["main"].mean())


def test_runs_without_arrays_answer_the_same_wherever_they_lie(
    cifar_store: CifarStore, tmp_path: Path
) -> None:
    dataset = cifar_dataset(cifar_store.test, n=None, draws=DRAWS, seed=SEED)
    for model in sorted(cifar_store.models.iterdir()):
        plan = plan_cifar_capture(CaptureOptions(str(model), arrays=("none",)), dataset)
        capture(plan, tmp_path / "store")
    (tmp_path / "beside").mkdir()
    moved = (tmp_path / "store").rename(tmp_path / "beside" / "store")
    assert not list(moved.rglob("arrays.zarr"))
    with moedb.open(moved) as tables, moedb.open(cifar_store.folder) as whole:
        assert not set(tables.snapshot.runs) & set(whole.snapshot.runs)
        for name, given in {
            "router-ablation": {"level": "trial"},
            "expert-accuracy": {},
            "load-balance-by-trial": {},
            "routing-by-class-over-trials": {"experts": 3},
            "class-covariance": {},
            "class-correlation": {},
            "class-consistency": {},
        }.items():
            rows = tables.query(name, **given).df()
            pd.testing.assert_frame_equal(rows, whole.query(name, **given).df())
            assert len(rows) > 0
