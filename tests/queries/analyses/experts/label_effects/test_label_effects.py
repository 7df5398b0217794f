"""The questions about effects over rows that are worked by hand, and drawn again by plain loops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import moedb
from moedb.errors import ParameterError, UsageError
from moedb.schemas.additions import Addition
from moedb.schemas.tables import EXPERT_LABELS, LABEL_EFFECTS
from moedb.store.writing.complete.additions import add
from moedb.store.writing.tables.parquet import arrow_schema
from tests.support.oracles.interval_oracle import bca
from tests.support.stores.made.routed_words import RUN_ID, write_routed_words

LAYER, N_WORDS = 1, 10


def effect(
    expert: int,
    role: str,
    token: int,
    change: float | None,
    routed: int = 1,
    fits: int | None = 1,
    **more: Any,
) -> dict[str, Any]:
    """A row; its document is its example."""
    row: dict[str, Any] = {
        "layer": LAYER,
        "expert": expert,
        "effect_set": "e",
        "label_set": "labels",
        "kind": "fuzzing",
        "role": role,
        "ablated": expert if role == "own" else expert + 1,
        "token_idx": token,
        "example_id": token // N_WORDS,
        "cluster": token // N_WORDS,
        "routed": routed,
        "fits": fits,
        "chosen": routed,
        "n_following": 0 if change is None else 2,
        "next_change": change,
        "following_change": None if change is None else 10 * change,
        "attribution": None,
        "attribution_rank": None,
        "n_attributed": None,
    }
    return row | more


def table(described: Any, rows: list[dict[str, Any]]) -> pa.Table:
    fields = [field for field in arrow_schema(described) if field.name != "run_id"]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def of_expert_2() -> list[dict[str, Any]]:
    ranked = {"attribution": 0.5, "n_attributed": 8}
    return [
        effect(2, "own", 0, -0.5, **ranked, attribution_rank=1),
        effect(2, "own", 10, -0.3, **ranked, attribution_rank=2),
        effect(2, "own", 11, -0.1, **ranked, attribution_rank=3),
        effect(2, "own", 20, -0.1, fits=0, **ranked, attribution_rank=8),
        effect(2, "own", 1, 0.1, fits=0, **ranked, attribution_rank=6),
        effect(2, "own", 30, 0.02, routed=0),
        effect(2, "own", 31, 0.01, routed=0, fits=0),
        effect(2, "own", 32, 0.03, routed=0, fits=0),
        effect(2, "own", 33, -9.0, fits=None),  # without a verdict it is in no group
        effect(2, "own", 39, None),  # nothing follows
        effect(2, "control", 0, 0.0),
        effect(2, "control", 10, -0.2),
        effect(2, "control", 11, -0.1),
        effect(2, "control", 20, -7.0, fits=0),
        effect(2, "control-own", 40, -0.4, routed=0, fits=None, **ranked, attribution_rank=4),
        effect(2, "control-own", 50, 0.0, routed=0, fits=None, **ranked, attribution_rank=5),
    ]


def of_expert_5() -> list[dict[str, Any]]:
    """No token that chose it and that its label fits."""
    return [
        effect(5, "own", 2, -0.2, fits=0),
        effect(5, "own", 12, -0.4, fits=0),
        effect(5, "own", 22, 0.1, routed=0),
    ]


def of_expert_7() -> list[dict[str, Any]]:
    """It hurts less where the label fits, by the same in every document."""
    return [
        effect(7, "own", 10 * document + place, change, fits=fits)
        for document in range(6)
        for place, (change, fits) in enumerate([(-0.1, 1), (-0.3, 0)])
    ]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> moedb.Database:
    store = tmp_path_factory.mktemp("effects") / "store"
    write_routed_words(store, 8, N_WORDS)
    labels = {
        "source": "reader",
        "model": "m",
        "label_set": "labels",
        "layer": LAYER,
        "status": "labelled",
        "n_decisions": 5,
        "n_contexts": 5,
    }
    named = [{**labels, "expert": expert, "label": f"label {expert}"} for expert in (2, 5)]
    add(
        store,
        RUN_ID,
        Addition("labels", "expert-labels"),
        {"expert_labels": [table(EXPERT_LABELS, named)]},
    )
    rows = [*of_expert_2(), *of_expert_5(), *of_expert_7()]
    add(
        store,
        RUN_ID,
        Addition("e", "label-effects"),
        {"label_effects": [table(LABEL_EFFECTS, rows)]},
    )
    other = [row | {"effect_set": "f"} for row in of_expert_7()]
    add(
        store,
        RUN_ID,
        Addition("f", "label-effects"),
        {"label_effects": [table(LABEL_EFFECTS, other)]},
    )
    return moedb.open(store)


def ask(database: moedb.Database, **given: Any) -> dict[int, Any]:
    found = database.query("label-effects", run=RUN_ID, **{"effects": "e", "samples": 200, **given})
    return {row.expert: row for row in found.df().itertuples()}


def test_means_of_the_groups_of_one_expert(database: moedb.Database) -> None:
    row = ask(database)[2]
    assert (row.effect_set, row.label_set, row.kind, row.layer) == ("e", "labels", "fuzzing", 1)
    assert row.label == "label 2" and pd.isna(row.reason)
    numbers = {
        "fits": (-0.3, 3),
        "other": (0.0, 2),
        "unrouted_fits": (0.02, 1),
        "unrouted_other": (0.02, 2),
        "control": (-0.1, 3),
        "control_own": (-0.2, 2),
    }
    for group, (mean, size) in numbers.items():
        assert getattr(row, group) == pytest.approx(mean, abs=1e-12)
        assert getattr(row, f"n_{group}") == size
    assert row.fits_less_other == pytest.approx(-0.3)
    assert row.fits_less_control == pytest.approx(-0.2)
    assert row.fits_less_control_own == pytest.approx(-0.1)
    assert (row.rank, row.n_ranked) == (4.0, 5)  # of 1, 2, 3, 8 and 6
    assert row.control_rank == 4.5
    assert row.n_documents == 6


def test_the_following_tokens_are_another_measure(database: moedb.Database) -> None:
    row = ask(database, measure="following")[2]
    assert row.fits == pytest.approx(-3.0) and row.fits_less_control == pytest.approx(-2.0)


def test_an_empty_group_is_null_with_a_reason(database: moedb.Database) -> None:
    row = ask(database)[5]
    assert np.isnan([row.fits, row.fits_low, row.fits_less_other, row.control_own]).all()
    assert (row.n_fits, row.n_other, row.n_control_own) == (0, 2, 0)
    assert row.other == pytest.approx(-0.3) and row.other_low < -0.3 < row.other_high
    assert row.reason == (
        "none of: tokens that chose the expert and that its label fits; tokens that chose a "
        "control, that one ablated"
    )
    assert pd.isna(ask(database)[7].label)  # its label was taken out


def test_a_difference_that_never_varies_has_an_interval_without_width(
    database: moedb.Database,
) -> None:
    row = ask(database)[7]
    ends = (row.fits_less_other_low, row.fits_less_other_high)
    assert (row.fits_less_other, *ends) == pytest.approx((0.2, 0.2, 0.2))


def loops(
    effects: list[dict[str, Any]], groups: tuple[str, ...]
) -> tuple[Callable[[list[int]], float], list[list[int]]]:
    """The statistic of rows, and the rows of each document."""

    def group(row: dict[str, Any]) -> str:
        if row["role"] == "control-own":
            return "control_own"
        if row["role"] == "control":
            return "control" if row["fits"] and row["routed"] else ""
        if row["fits"] is None or not row["routed"]:
            return ""
        return "fits" if row["fits"] else "other"

    held = [(group(row), row) for row in effects if row["next_change"] is not None]
    held = [(name, row) for name, row in held if name in groups]

    def statistic(chosen: list[int]) -> float:
        means = [
            [held[at][1]["next_change"] for at in chosen if held[at][0] == name] for name in groups
        ]
        if not all(means):
            return float("nan")
        return float(np.mean(means[0]) - (np.mean(means[1]) if len(groups) > 1 else 0))

    documents = sorted({row["cluster"] for _, row in held})
    rows = [[at for at, (_, row) in enumerate(held) if row["cluster"] == own] for own in documents]
    return statistic, rows


def test_intervals_are_those_of_documents_drawn_by_plain_loops(database: moedb.Database) -> None:
    """Where every draw has both groups: each document has tokens of both."""
    rng = np.random.default_rng(3)
    rows = []
    for document in range(8):
        for place in range(6):
            fits = place % 2
            change = float(rng.normal(-0.2 * fits, 0.1) + 0.02 * document)
            rows.append(effect(3, "own", 10 * document + place, change, fits=fits))
    store = database.snapshot.store
    add(
        store,
        RUN_ID,
        Addition("g", "label-effects"),
        {"label_effects": [table(LABEL_EFFECTS, [row | {"effect_set": "g"} for row in rows])]},
    )
    with moedb.open(store) as again:
        row = ask(again, effects="g", samples=400, seed=5)[3]
        (counted,) = [
            each
            for each in again.query(
                "label-effect-counts", run=RUN_ID, effects="g", samples=400, seed=5
            )
            .df()
            .itertuples()
            if each.comparison == "fits_less_other"
        ]
    for groups, name in ((("fits",), "fits"), (("fits", "other"), "fits_less_other")):
        low, high = bca(*loops(rows, groups), 400, 5)
        assert getattr(row, f"{name}_low") == pytest.approx(low)
        assert getattr(row, f"{name}_high") == pytest.approx(high)
    # one expert alone: the mean over experts is its own
    assert (counted.mean_low, counted.mean_high) == pytest.approx((low, high))
    assert counted.mean == pytest.approx(row.fits_less_other)


def test_experts_are_counted(database: moedb.Database) -> None:
    found = database.query("label-effect-counts", run=RUN_ID, effects="e", samples=200).df()
    rows = {row.comparison: row for row in found.itertuples()}
    assert set(found["layer"]) == {1} and len(rows) == 3
    other = rows["fits_less_other"]
    assert (other.n_experts, other.n_compared) == (3, 2)
    # of expert 2 the tokens are of two documents: too few for an interval
    assert (other.n_below, other.n_intervals) == (1, 1)
    assert (other.n_surely_below, other.n_surely_above) == (0, 1)
    assert other.mean == pytest.approx((-0.3 + 0.2) / 2)
    control = rows["fits_less_control_own"]
    assert (control.n_compared, control.mean) == (1, pytest.approx(-0.1))


def test_what_is_asked_for_must_be_there(database: moedb.Database, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no effects named 'E' in"):
        ask(database, effects="E")
    with pytest.raises(ParameterError, match="measure"):
        ask(database, measure="last")
    write_routed_words(tmp_path / "store", 2, N_WORDS)
    with (
        moedb.open(tmp_path / "store") as other,
        pytest.raises(UsageError, match="has no effects of labelled experts"),
    ):
        other.query("label-effects", run=RUN_ID)
