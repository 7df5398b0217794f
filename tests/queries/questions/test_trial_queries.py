"""The named queries over trials, and their view, against numpy and by hand."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import duckdb
import numpy as np
import pandas as pd
import pytest

from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog, named_query
from tests.support.oracles.oracle import Tables, entropy_bits, frame, in_order, of_run
from tests.support.stores import synthetic, synthetic_trials
from tests.support.stores.synthetic_trials import NEWEST, Trial, as_tables

NUMBERS = {"variant": "base", "experts": 2}
TRIALS: list[dict[str, object]] = [
    *({}, {"variant": "base"}, {"experts": 3}, NUMBERS),
    *({"gate": "unweighted"}, {"balance": "count"}, {"aux_coefficient": 1e-5}),
    {"variant": "short", "experts": 2, "gate": "weighted", "balance": "mean"},
]
BY_CLASS: list[dict[str, object]] = [*TRIALS, {"key": "size"}, {"layer": 4}, {"key": "trial"}]
SETTINGS: dict[str, list[dict[str, object]]] = {
    "router-ablation": [*TRIALS, *({"level": "trial", **trials} for trials in TRIALS)],
    "class-correlation": BY_CLASS,
    "class-covariance": BY_CLASS,
    "class-consistency": BY_CLASS,
    "expert-accuracy": [*TRIALS, {"key": "size"}, {"run": "cifar-moe-b31"}],
    "load-balance-by-trial": TRIALS,
}
NOTHING: list[dict[str, object]] = [
    *({"variant": "no such variant"}, {"experts": 4}),
    {"gate": "unweighted", "balance": "count"},
]
TEXTS = {"error_over", "variant", "gate", "balance", "class_a", "class_b", "value"}
Training = tuple[str, int, str, str, float]


def training(trial: Trial) -> Training:
    """What the trials have in common that are averaged; no number where the run does not say."""
    coefficient = math.nan if trial.aux_coefficient is None else trial.aux_coefficient
    gate, balance = trial.gate or "weighted", trial.balance or "mean"
    return trial.variant, trial.experts, gate, balance, coefficient


def shown(**chosen: object) -> list[Trial]:
    """The trials that the parameters ask for, in order; coefficients that are not known last."""
    names = ("variant", "experts", "gate", "balance", "aux_coefficient")
    assert chosen.keys() <= set(names)
    found = [
        trial
        for trial in NEWEST
        if all(
            chosen.get(name) in (None, value)
            for name, value in zip(names, training(trial), strict=True)
        )
    ]
    return sorted(
        found,
        key=lambda trial: (*training(trial)[:4], trial.aux_coefficient or math.inf, trial.trial),
    )


def configurations(**chosen: object) -> Iterator[tuple[Training, list[Trial]]]:
    """Those trials by what they have in common."""
    for _, group in itertools.groupby(
        shown(**chosen), key=lambda trial: (*training(trial)[:4], trial.aux_coefficient)
    ):
        trials = list(group)
        yield training(trials[0]), trials


def correctness(tables: Tables, run_id: str, kind: str, expert: int | None = None) -> np.ndarray:
    """(condition, image): 1 where the image was classified rightly."""
    conditions = of_run(tables, "conditions", run_id)
    conditions = conditions[conditions["kind"] == kind]
    if expert is not None:
        conditions = conditions[conditions["expert"] == expert]
    predictions = of_run(tables, "predictions", run_id)
    right = predictions.assign(
        right=(predictions["predicted"] == predictions["target"]).astype(float)
    )
    wide = right.pivot(index="condition_id", columns="example_id", values="right")
    return wide.loc[conditions["condition_id"].tolist()].to_numpy()


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation of the values that are there."""
    there = [value for value in values if not math.isnan(value)]
    return float(np.std(there, ddof=1)) if len(there) > 1 else math.nan


def ablate(tables: Tables, trials: list[Trial]) -> tuple[float, ...]:
    """n_trials and all that follows it in a row of router-ablation."""
    learned = [correctness(tables, trial.run_id, "none")[0] for trial in trials]
    draws = {
        kind: [correctness(tables, trial.run_id, kind) for trial in trials]
        for kind in synthetic_trials.ABLATIONS
    }
    # every run has the same number of images, so a mean of means is the mean
    means = [
        float(np.mean([each.mean() for each in there])) if there else math.nan
        for there in ([each for each in draws[kind] if len(each)] for kind in draws)
    ]
    accuracy = float(np.concatenate(learned).mean())
    by_trial = [
        (right.mean(), drawn.mean() if len(drawn) else math.nan)
        for right, drawn in zip(learned, draws["random-routing"], strict=True)
    ]
    differences = [
        right - drawn.mean(axis=0)
        for right, drawn in zip(learned, draws["random-routing"], strict=True)
        if len(drawn)
    ]
    decreases = [100 * (right - drawn) / right for right, drawn in by_trial]
    error, over = math.nan, None
    if len(differences) > 1:
        error, over = spread(decreases) / math.sqrt(len(differences)), "trials"
    elif differences:
        (own,) = differences
        error, over = 100 * math.sqrt(np.var(own, ddof=1) / len(own)) / accuracy, "images"
    return (
        len(trials),
        sum(map(len, learned)),
        sum(right.sum() for right in learned),
        accuracy,
        *means,
        100 - 100 * means[0] / accuracy,
        error,
        over,
        spread([right for right, _ in by_trial]),
        spread([drawn for _, drawn in by_trial]),
        spread(decreases),
    )


def router_ablation(
    tables: Tables,
    level: str = "experts",
    **chosen: object,
) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for key, trials in configurations(**chosen):
        if level == "trial":
            rows += [(*key, trial.trial, *ablate(tables, [trial])) for trial in trials]
        else:
            rows.append((*key, math.nan, *ablate(tables, trials)))
    return frame(
        "variant experts gate balance aux_coefficient trial n_trials n_images n_correct learned "
        "random reweighted reinitialized decrease decrease_error error_over learned_sd random_sd "
        "decrease_sd",
        rows,
    )


def counts_by_class(
    tables: Tables, run_id: str, key: str, layer: int | None
) -> dict[int, dict[str, np.ndarray]]:
    """For each layer and value, (E,): the images with the value that chose each expert."""
    routing = of_run(tables, "routing", run_id)
    counts: dict[int, dict[str, np.ndarray]] = {}
    for shape in of_run(tables, "moe_layers", run_id).itertuples():
        if layer not in (None, shape.layer):
            continue
        here = routing[routing["layer"] == shape.layer]
        # one token for each example, of the same number
        chosen = dict(zip(here["token_idx"], here["expert"], strict=True))
        labels = of_run(tables, "example_labels", run_id)
        images: dict[str, list[int]] = {}
        for label in labels[labels["key"] == key].itertuples():
            images.setdefault(label.value, []).append(label.example_id)
        for label in of_run(tables, "run_labels", run_id).itertuples():
            if label.key == key:
                images[label.value] = list(chosen)
        counts[shape.layer] = {
            value: np.bincount([chosen[image] for image in members], minlength=shape.n_experts)
            for value, members in images.items()
        }
    return counts


def class_pairs(
    tables: Tables,
    measure: Callable[[np.ndarray, np.ndarray], float],
    key: str = "class",
    layer: int | None = None,
    **chosen: object,
) -> Iterator[tuple[tuple[object, ...], list[float]]]:
    """The measure of each pair of classes over the trials, with the columns that name the pair."""
    for configuration, trials in configurations(**chosen):
        of_trials = [counts_by_class(tables, trial.run_id, key, layer) for trial in trials]
        for each in sorted({each for counts in of_trials for each in counts}):
            values = in_order(list({value for counts in of_trials for value in counts[each]}))
            for a, b in itertools.product(values, values):
                found = [
                    measure(counts[each][a], counts[each][b])
                    for counts in of_trials
                    if a in counts[each] and b in counts[each]
                ]
                if found:
                    yield (*configuration, each, a, b), found


def pearson(counts_a: np.ndarray, counts_b: np.ndarray) -> float:
    if len(set(counts_a)) == 1 or len(set(counts_b)) == 1:
        return math.nan
    return float(np.corrcoef(counts_a / counts_a.sum(), counts_b / counts_b.sum())[0, 1])


def covariance(counts_a: np.ndarray, counts_b: np.ndarray) -> float:
    return float(np.cov(counts_a / counts_a.sum(), counts_b / counts_b.sum(), ddof=0)[0, 1])


def over_trials(
    tables: Tables,
    name: str,
    measure: Callable[[np.ndarray, np.ndarray], float],
    parameters: dict[str, object],
) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for pair, found in class_pairs(tables, measure, **parameters):  # type: ignore[arg-type]
        there = [value for value in found if not math.isnan(value)]
        sd = np.std(there, ddof=1) if len(there) > 1 else math.nan
        summary = (np.mean(there), sd, min(there), max(there)) if there else (math.nan,) * 4
        rows.append((*pair, len(there), *summary))
    names = "variant experts gate balance aux_coefficient layer class_a class_b n_trials"
    return frame(f"{names} {name} sd lowest highest", rows)


def class_correlation(tables: Tables, **parameters: object) -> pd.DataFrame:
    return over_trials(tables, "correlation", pearson, parameters)


def class_covariance(tables: Tables, **parameters: object) -> pd.DataFrame:
    return over_trials(tables, "covariance", covariance, parameters)


def class_consistency(tables: Tables, **parameters: object) -> pd.DataFrame:
    def together(counts_a: np.ndarray, counts_b: np.ndarray) -> float:
        return float(counts_a.argmax() == counts_b.argmax())

    rows = [
        (*pair, len(found), sum(found), sum(found) / len(found))
        for pair, found in class_pairs(tables, together, **parameters)  # type: ignore[arg-type]
    ]
    names = "variant experts gate balance aux_coefficient layer class_a class_b n_trials"
    return frame(f"{names} n_together share", rows)


def expert_accuracy(
    tables: Tables,
    key: str = "class",
    run: str | None = None,
    **chosen: object,
) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for trial in shown(**chosen):
        if run not in (None, trial.run_id):
            continue
        labels = of_run(tables, "example_labels", trial.run_id)
        labels = labels[labels["key"] == key]
        learned = correctness(tables, trial.run_id, "none")[0]
        forced = [
            correctness(tables, trial.run_id, "force-experts", expert)[0]
            for expert in range(trial.experts)
        ]
        layer = synthetic_trials.FORCED_LAYER
        counts = counts_by_class(tables, trial.run_id, key, layer)[layer]
        for value in in_order(list(set(labels["value"]))):
            images = labels[labels["value"] == value]["example_id"].to_numpy(dtype=int)
            for expert in range(trial.experts):
                right = forced[expert][images]
                rows.append(
                    (
                        *training(trial),
                        trial.trial,
                        value,
                        expert,
                        len(images),
                        right.sum(),
                        right.mean(),
                        learned[images].mean(),
                        counts[value][expert] / len(images),
                    )
                )
    return frame(
        "variant experts gate balance aux_coefficient trial value expert n_images n_correct "
        "accuracy learned routed",
        rows,
    )


def load_balance_by_trial(tables: Tables, **chosen: object) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for trial in shown(**chosen):
        routing = of_run(tables, "routing", trial.run_id)
        mass = of_run(tables, "router_mass", trial.run_id)
        for shape in of_run(tables, "moe_layers", trial.run_id).itertuples():
            chosen = routing[routing["layer"] == shape.layer]["expert"].to_numpy(dtype=int)
            counts = np.bincount(chosen, minlength=shape.n_experts)
            shares = counts / counts.sum()
            here = mass[mass["layer"] == shape.layer]
            wide = here.pivot(index="example_id", columns="expert", values="probability")
            mean_probability = wide.to_numpy(dtype=np.float64).mean(axis=0)
            rows.append(
                (
                    *training(trial),
                    trial.trial,
                    shape.layer,
                    len(chosen),
                    (counts == 0).sum(),
                    entropy_bits(shares) / math.log2(shape.n_experts),
                    shares.max(),
                    shares.min(),
                    shape.n_experts * (shares @ mean_probability),
                )
            )
    return frame(
        "variant experts gate balance aux_coefficient trial layer n_decisions n_dead "
        "normalized_entropy largest_share smallest_share switch_loss",
        rows,
    )


ORACLES: dict[str, Callable[..., pd.DataFrame]] = {
    "router-ablation": router_ablation,
    "class-correlation": class_correlation,
    "class-covariance": class_covariance,
    "class-consistency": class_consistency,
    "expert-accuracy": expert_accuracy,
    "load-balance-by-trial": load_balance_by_trial,
}


@pytest.fixture(scope="module", params=(0, 1))
def tables(request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    return synthetic_trials.make_tables(request.param)


@pytest.fixture(scope="module")
def connection(tables: dict[str, pd.DataFrame]) -> duckdb.DuckDBPyConnection:
    return synthetic.connect(tables)


@pytest.fixture(scope="module")
def shuffled(tables: dict[str, pd.DataFrame]) -> duckdb.DuckDBPyConnection:
    return synthetic.connect(tables, seed=7)


def ask(connection: duckdb.DuckDBPyConnection, name: str, given: dict[str, object]) -> pd.DataFrame:
    """Run a query's SQL with its values, the run that none is given for looked up."""
    query = named_query(name)
    values = bind(query, given)
    if "run" in values and values["run"] is None and not query.reads_trials:
        ((values["run"],),) = connection.execute("from latest_run").fetchall()
    return connection.execute(query.sql, values).df()


def ask_macro(
    connection: duckdb.DuckDBPyConnection, name: str, given: dict[str, object]
) -> pd.DataFrame:
    arguments = ", ".join(
        f"{key} := " + ("null" if value is None else repr(value)) for key, value in given.items()
    )
    return connection.execute(f"from {named_query(name).macro_name}({arguments})").df()


def assert_same_rows(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Fail unless both have the same rows in the same order; floats to 1 part in 10^9."""
    assert list(actual.columns) == list(expected.columns)
    assert len(actual) == len(expected)
    for column in expected.columns:
        left, right = actual[column], expected[column]
        if column in TEXTS:
            texts = [[None if pd.isna(text) else text for text in side] for side in (left, right)]
            assert texts[0] == texts[1], column
        else:
            np.testing.assert_allclose(
                left.to_numpy(dtype=np.float64, na_value=np.nan),
                right.to_numpy(dtype=np.float64, na_value=np.nan),
                rtol=1e-9,
                atol=1e-12,
                err_msg=column,
            )


def test_every_query_over_trials_is_covered() -> None:
    named = {name for name, query in catalog().items() if query.reads_trials}
    assert set(ORACLES) == set(SETTINGS) == named


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_query_gives_what_numpy_gives(
    name: str,
    tables: dict[str, pd.DataFrame],
    connection: duckdb.DuckDBPyConnection,
    shuffled: duckdb.DuckDBPyConnection,
) -> None:
    for given in [*SETTINGS[name], *NOTHING]:
        actual = ask(connection, name, given)
        assert_same_rows(actual, ORACLES[name](tables, **given))
        assert actual.empty == (given in NOTHING)
        pd.testing.assert_frame_equal(ask(shuffled, name, given), actual, rtol=1e-12)
        pd.testing.assert_frame_equal(ask_macro(connection, name, given), actual, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_null_parameters_are_the_defaults(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    nulls = dict.fromkeys(parameter.name for parameter in named_query(name).parameters)
    pd.testing.assert_frame_equal(
        ask_macro(connection, name, nulls), ask(connection, name, {}), rtol=1e-12
    )


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_types_are_those_any_engine_has(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    query = named_query(name)
    described = connection.execute(f"describe from {query.macro_name}()").fetchall()
    types = {column: column_type for column, column_type, *_ in described}
    assert tuple(types) == query.column_names
    for column, column_type in types.items():
        if column in TEXTS:
            expected = "VARCHAR"
        elif column in {"experts", "trial", "layer", "expert"}:
            expected = "INTEGER"
        else:
            expected = "BIGINT" if column.startswith("n_") else "DOUBLE"
        assert column_type == expected, column


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_is_undefined_is_null_and_not_nan(
    name: str, connection: duckdb.DuckDBPyConnection
) -> None:
    query = named_query(name)
    for given in SETTINGS[name]:
        rows = connection.execute(query.sql, bind(query, given)).fetchall()
        floats = [value for row in rows for value in row if isinstance(value, float)]
        assert all(math.isfinite(value) for value in floats)


def test_trial_routing_counts_every_value_and_expert(
    tables: Tables, connection: duckdb.DuckDBPyConnection
) -> None:
    expected = [
        (
            *(trial.run_id, *training(trial)[:4], trial.aux_coefficient, trial.trial),
            *(key, value, layer, expert, count),
        )
        for trial in shown()
        for key in (
            *("class", "size", "trial", "seed", "variant", "experts"),
            *("gate", "balance", "aux_coefficient"),
        )
        for layer, values in counts_by_class(tables, trial.run_id, key, None).items()
        for value, counts in values.items()
        for expert, count in enumerate(counts.tolist())
    ]
    assert any(count == 0 for *_, count in expected)
    rows = connection.execute("from trial_routing").fetchall()
    assert sorted(rows, key=repr) == sorted(expected, key=repr)
    described = connection.execute("describe trial_routing").fetchall()
    assert [row[:2] for row in described] == [
        ("run_id", "VARCHAR"),
        ("variant", "VARCHAR"),
        ("experts", "INTEGER"),
        ("gate", "VARCHAR"),
        ("balance", "VARCHAR"),
        ("aux_coefficient", "DOUBLE"),
        ("trial", "INTEGER"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
        ("layer", "INTEGER"),
        ("expert", "INTEGER"),
        ("n_decisions", "BIGINT"),
    ]


def test_the_view_has_the_newest_complete_capture_of_each_trial(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = connection.execute(
        "from trials order by variant, experts, gate, balance, aux_coefficient, trial"
    ).fetchall()
    assert rows == [
        (trial.run_id, *training(trial)[:4], trial.aux_coefficient, trial.trial)
        for trial in shown()
    ]
    described = connection.execute("describe trials").fetchall()
    assert [row[:2] for row in described] == [
        ("run_id", "VARCHAR"),
        ("variant", "VARCHAR"),
        ("experts", "INTEGER"),
        ("gate", "VARCHAR"),
        ("balance", "VARCHAR"),
        ("aux_coefficient", "DOUBLE"),
        ("trial", "INTEGER"),
    ]


def test_a_trial_needs_its_two_labels_and_no_variant() -> None:
    labels = {
        "whole": {"experts": "2", "trial": "0"},
        "again": {"experts": "2", "trial": "0", "variant": "base"},
        "no-trial": {"experts": "2"},
        "no-experts": {"trial": "0"},
        "worded": {"experts": "many", "trial": "0"},
        "bare": {},
    }
    runs = [
        {
            "runs": [{"run_id": run_id, "status": "complete", "created_at": "2026"}],
            "run_labels": [
                {"run_id": run_id, "key": key, "value": value} for key, value in of_it.items()
            ],
        }
        for run_id, of_it in labels.items()
    ]
    rows = synthetic.connect(as_tables(runs)).execute("from trials order by variant").fetchall()
    assert rows == [
        ("whole", "", 2, "weighted", "mean", None, 0),
        ("again", "base", 2, "weighted", "mean", None, 0),
    ]


def test_matrices_are_symmetric_and_whole(connection: duckdb.DuckDBPyConnection) -> None:
    n_classes = len(synthetic_trials.CLASSES)
    for name, column in (
        ("class-correlation", "correlation"),
        ("class-covariance", "covariance"),
        ("class-consistency", "share"),
    ):
        rows = ask(connection, name, {"layer": 2, **NUMBERS})
        matrix = rows.pivot(index="class_a", columns="class_b", values=column)
        assert matrix.shape == (n_classes, n_classes)
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
    # ship chooses both experts equally often
    correlation = ask(connection, "class-correlation", NUMBERS)
    assert correlation[correlation["class_a"] == "ship"]["correlation"].isna().all()
    same = correlation[correlation["class_a"] == correlation["class_b"]]["correlation"].dropna()
    assert (same == 1).all() and len(same)
    consistency = ask(connection, "class-consistency", {})
    same = consistency[consistency["class_a"] == consistency["class_b"]]
    assert (same["share"] == 1).all()


def test_values_that_are_numbers_come_by_size(connection: duckdb.DuckDBPyConnection) -> None:
    rows = ask(connection, "expert-accuracy", {"key": "size", "run": "cifar-moe-b20"})
    assert rows["value"].drop_duplicates().tolist() == ["2", "10", "1e1", "odd"]
    trials = ask(connection, "load-balance-by-trial", NUMBERS)["trial"]
    assert trials.tolist() == [0, 1, 10]


def test_a_dead_expert_has_the_smallest_share(connection: duckdb.DuckDBPyConnection) -> None:
    rows = ask(connection, "load-balance-by-trial", {"experts": 3})
    wide = rows[rows["layer"] == 4]
    assert (wide["n_dead"] >= 1).all()
    assert (wide["smallest_share"] == 0).all()


def test_a_trial_without_ablations_has_none(connection: duckdb.DuckDBPyConnection) -> None:
    for level in ("experts", "trial"):
        given = {"level": level, "variant": "short", "experts": 3, "gate": "weighted"}
        row = ask(connection, "router-ablation", given).iloc[0]
        assert (row["n_trials"], row["n_images"]) == (1, synthetic_trials.N_IMAGES)
        absent = ["random", "reweighted", "reinitialized", "decrease", "decrease_error"]
        absent.append("error_over")
        assert row[[*absent, "learned_sd", "random_sd", "decrease_sd"]].isna().all()
        assert row["learned"] > 0


def small_run(
    trial: int,
    predictions: Sequence[tuple[str, tuple[int, ...]]] = (),
    choices: Sequence[tuple[str, tuple[int, ...]]] = (),
) -> dict[str, list[dict[str, object]]]:
    """A trial with 2 experts, from what each condition got right or what each class chose."""
    run_id = f"trial-{trial}"
    rows: dict[str, list[dict[str, object]]] = {
        "runs": [{"status": "complete", "created_at": "2026"}],
        "run_labels": [{"key": "experts", "value": "2"}, {"key": "trial", "value": str(trial)}],
        "moe_layers": [{"layer": 0, "n_experts": 2, "top_k": 1}],
        **{name: [] for name in ("conditions", "predictions", "examples", "tokens")},
        **{name: [] for name in ("example_labels", "routing")},
    }
    for condition_id, (kind, right) in enumerate(predictions):
        rows["conditions"].append({"condition_id": condition_id, "kind": kind})
        rows["predictions"] += [
            {"condition_id": condition_id, "example_id": image, "correct": each}
            for image, each in enumerate(right)
        ]
    chosen = [(value, expert) for value, experts in choices for expert in experts]
    for image, (value, expert) in enumerate(chosen):
        rows["examples"].append({"example_id": image, "split": "test", "n_tokens": 1})
        rows["tokens"].append({"token_idx": image, "example_id": image, "position": 0})
        rows["example_labels"].append({"example_id": image, "key": "class", "value": value})
        rows["routing"].append({"token_idx": image, "layer": 0, "rank": 0, "expert": expert})
    return {name: [{"run_id": run_id, **row} for row in of_it] for name, of_it in rows.items()}


def test_router_ablation_by_hand() -> None:
    small = synthetic.connect(
        as_tables(
            [
                small_run(
                    0,
                    [
                        ("none", (1, 1, 1, 0)),
                        ("random-routing", (1, 0, 0, 0)),
                        ("random-routing", (1, 1, 0, 0)),
                        ("random-routing-reweighted", (1, 1, 0, 0)),
                    ],
                ),
                small_run(
                    1,
                    [
                        ("none", (1, 1, 0, 0)),
                        ("random-routing", (1, 0, 0, 0)),
                        ("random-routing", (1, 1, 1, 1)),
                    ],
                ),
            ]
        )
    )
    first, second = ask(small, "router-ablation", {"level": "trial"}).to_dict("records")
    assert (first["variant"], first["experts"], first["trial"], first["n_trials"]) == ("", 2, 0, 1)
    assert (first["n_images"], first["n_correct"], first["learned"]) == (4, 3, 0.75)
    assert (first["random"], first["reweighted"], first["decrease"]) == (0.375, 0.5, 50)
    # differences 0, 1/2, 1, 0: squares about 3/8 add up to 11/16
    assert first["decrease_error"] == pytest.approx(100 * math.sqrt(11 / 16 / 3 / 4) / 0.75)
    assert (second["learned"], second["random"], second["decrease"]) == (0.5, 0.625, -25)
    assert pd.isna(second["reweighted"]) and pd.isna(second["learned_sd"])

    (both,) = ask(small, "router-ablation", {}).to_dict("records")
    assert pd.isna(both["trial"])
    assert (both["n_trials"], both["n_images"], both["n_correct"]) == (2, 8, 5)
    assert (both["learned"], both["random"], both["reweighted"]) == (0.625, 0.5, 0.5)
    assert pd.isna(both["reinitialized"])
    assert both["decrease"] == pytest.approx(20)
    # the same four images twice are no eight: what varies are the decreases of 50 and -25
    assert (first["error_over"], both["error_over"]) == ("images", "trials")
    assert both["decrease_error"] == pytest.approx(75 / math.sqrt(2) / math.sqrt(2))
    assert both["learned_sd"] == pytest.approx(0.25 / math.sqrt(2))
    assert both["random_sd"] == pytest.approx(0.25 / math.sqrt(2))
    assert both["decrease_sd"] == pytest.approx(75 / math.sqrt(2))


def test_class_matrices_by_hand() -> None:
    # shares (1, 0), (1/2, 1/2) and (1/4, 3/4); the second trial has its experts the other way round
    small = synthetic.connect(
        as_tables(
            [
                small_run(0, choices=[("a", (0, 0)), ("b", (0, 1)), ("c", (0, 1, 1, 1))]),
                small_run(1, choices=[("a", (1, 1)), ("b", (1, 0)), ("c", (1, 0, 0, 0))]),
            ]
        )
    )
    covariances = ask(small, "class-covariance", {})
    expected = [1 / 4, 0, -1 / 8, 0, 0, 0, -1 / 8, 0, 1 / 16]
    for column in ("covariance", "lowest", "highest"):
        assert covariances[column].tolist() == expected
    assert covariances["n_trials"].tolist() == [2] * 9
    correlations = ask(small, "class-correlation", {})
    np.testing.assert_array_equal(
        correlations["correlation"].to_numpy(dtype=float),
        [1, np.nan, -1, np.nan, np.nan, np.nan, -1, np.nan, 1],
    )
    assert correlations["n_trials"].tolist() == [2, 0, 2, 0, 0, 0, 2, 0, 2]
    # b is undecided: expert 0, with a in the first trial and with c in the second
    consistency = ask(small, "class-consistency", {})
    assert consistency["n_together"].tolist() == [2, 1, 0, 1, 2, 1, 0, 1, 2]


def test_last_digits_are_the_same_in_any_order_of_rows() -> None:
    """Sevenths and thirds have no exact sum: in another order they differ in the last digit."""
    draw = np.random.default_rng(0)
    kinds = ["none", *["random-routing"] * 7, *["reinitialize-experts"] * 3]
    cells = itertools.product("abc", range(len(kinds)), range(300))
    predictions = pd.DataFrame(
        [(*cell, int(draw.random() < 0.7)) for cell in cells],
        columns=["run_id", "condition_id", "example_id", "correct"],
    )
    conditions = pd.DataFrame(
        [(run, number, kind) for run in "abc" for number, kind in enumerate(kinds)],
        columns=["run_id", "condition_id", "kind"],
    )
    trials = pd.DataFrame({"run_id": list("abc"), "trial": range(3)}).assign(
        variant="base", experts=2, gate="weighted", balance="mean", aux_coefficient=1e-5
    )
    found = []
    for seed in range(8):
        with duckdb.connect() as db:
            db.register("predictions", predictions.sample(frac=1, random_state=seed))
            db.register("trials", trials.sample(frac=1, random_state=seed))
            db.register("conditions", conditions)
            found.append(ask(db, "router-ablation", {}))
    assert list(found[0]["n_images"]) == [900] and found[0]["decrease_sd"][0] > 0
    for answer in found:
        pd.testing.assert_frame_equal(answer, found[0], check_exact=True)
