"""The logit lens under interventions, against plain loops over the rows that were written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure

import moedb
from moedb.errors import ParameterError, UsageError
from moedb.queries.database import Database
from moedb.queries.figures.drawing import style_file
from moedb.queries.figures.predictions.lens import plot_lens_effect
from moedb.store.writing.run_writer import RunWriter
from tests.support.drawn.ioi_frames import lens_effects
from tests.support.oracles.interval_oracle import bca_of_mean
from tests.support.stores.synthetic_ioi import INTERVENED, columns, manifest

SAMPLES = 100
N_LAYERS = 3
N_PROMPTS = 5
"""Prompts of either split: an even example is clean, the odd one after it corrupted."""

Reading = dict[tuple[int, int, int, str], float]
"""Condition, example, layer, place -> logit difference."""

CONDITIONS: tuple[tuple[str, int | None, dict[str, Any]], ...] = (
    ("none", None, {}),
    ("random-routing", 1, {"seed": 0, "draw": 0}),
    ("random-routing", 1, {"seed": 0, "draw": 1}),
    ("knock-out-shared", 0, {}),
    ("patch", 2, {"site": "residual"}),
)
POINTS = [(0, "pre"), *((layer, place) for layer in range(N_LAYERS) for place in ("mid", "post"))]


@dataclass(frozen=True)
class Made:
    database: Database
    readings: Reading


def first_point(condition: int) -> int:
    """Where in POINTS the stored rows of a condition begin: at the stream entering its layer."""
    layer = CONDITIONS[condition][1]
    return 0 if not layer else POINTS.index((layer - 1, "post"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    store = tmp_path_factory.mktemp("lens") / "store"
    rng = np.random.default_rng(4)
    writer = RunWriter(store, manifest(INTERVENED, "intervene", {}))
    writer.begin(
        {
            "conditions": columns(
                [
                    {
                        "condition_id": number,
                        "kind": kind,
                        "layer": layer,
                        "expert": None,
                        "params": json.dumps(params),
                    }
                    for number, (kind, layer, params) in enumerate(CONDITIONS)
                ]
            )
        }
    )
    readings: Reading = {}
    for unit in range(2):
        examples = [e for e in range(2 * N_PROMPTS) if (e < N_PROMPTS) == (unit == 0)]
        rows = []
        for condition in range(len(CONDITIONS)):
            for example in examples:
                if CONDITIONS[condition][0] == "knock-out-shared" and example % 2:
                    continue  # a condition may be about the clean examples alone
                for layer, place in POINTS[first_point(condition) :]:
                    difference = float(np.float32(rng.normal(layer)))
                    readings[condition, example, layer, place] = difference
                    for position in (1, 2):
                        for candidate, sign in (("target", 1), ("foil", -1)):
                            rows.append(
                                {
                                    "condition_id": condition,
                                    "example_id": example,
                                    "position": position,
                                    "layer": layer,
                                    "place": place,
                                    "candidate": candidate,
                                    "target": " Mary",
                                    "logit": 1.0,
                                    "logprob": -1.0,
                                    "rank": 0,
                                    # what is read elsewhere must not be mixed in
                                    "logit_diff": sign * difference + 100 * (position == 1),
                                }
                            )
        made_of = [
            {"example_id": e, "split": ("clean", "corrupted")[e % 2], "text": "", "n_tokens": 3}
            for e in examples
        ]
        answers = [
            {
                "condition_id": condition,
                "example_id": example,
                "target": " Mary",
                "predicted": " Mary",
                "correct": 1,
                "target_logprob": -1.0,
                "logit_diff": 1.0,
            }
            for condition in range(len(CONDITIONS))
            for example in examples
        ]
        tables = {
            "examples": columns(made_of),
            "predictions": columns(answers),
            "logit_lens": columns(rows),
        }
        writer.commit_unit(unit, tables, {})
    writer.finish()
    with moedb.open(store) as database:
        yield Made(database, readings)


@pytest.mark.parametrize("split", [None, "all", "clean", "corrupted"])
def test_is_the_difference_at_each_place(made: Made, split: str | None) -> None:
    found = made.database.query(
        "lens-effect", run=INTERVENED, split=split, samples=SAMPLES, seed=3
    ).fetchall()
    expected = []
    for numbers in ((1, 2), (3,), (4,)):
        kind, layer, params = CONDITIONS[numbers[0]]
        for number, own in enumerate(("clean", "corrupted")):
            taken = split in (own, "all") or (
                split is None and (own == "clean" or kind in ("patch", "swap-routing"))
            )
            if not taken or (kind == "knock-out-shared" and own == "corrupted"):
                continue
            examples = [e for e in range(2 * N_PROMPTS) if e % 2 == number]
            kept = {name: value for name, value in params.items() if name not in ("seed", "draw")}
            for read, place in POINTS[first_point(numbers[0]) :]:
                values = [
                    float(np.mean([made.readings[n, e, read, place] for n in numbers]))
                    for e in examples
                ]
                changes = [
                    value - made.readings[0, e, read, place]
                    for value, e in zip(values, examples, strict=True)
                ]
                expected.append(
                    (
                        *(kind, layer, None, json.dumps(kept), own, read, place),
                        *(len(numbers), len(examples), np.mean(values), np.mean(changes)),
                        *bca_of_mean(changes, SAMPLES, 3),
                    )
                )
    assert [row[:9] for row in found] == [row[:9] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row[9:] == pytest.approx(wanted[9:], rel=1e-6)


def test_kinds_can_be_chosen(made: Made) -> None:
    rows = made.database.query("lens-effect", run=INTERVENED, kind="patch, knock-out-shared")
    assert {row[0] for row in rows.fetchall()} == {"patch", "knock-out-shared"}
    with pytest.raises(
        ParameterError, match="no interventions of kind 'knockout-shared'"
    ) as caught:
        made.database.query("lens-effect", run=INTERVENED, kind="patch, knockout-shared")
    assert "did you mean knock-out-shared?" in caught.value.message


def test_the_lens_of_a_condition_takes_what_it_left_from_the_untouched_model(made: Made) -> None:
    for condition in range(len(CONDITIONS)):
        rows = made.database.query(
            "logit-lens", run=INTERVENED, condition=condition, samples=0
        ).fetchall()
        assert [row[:2] for row in rows] == POINTS
        start = first_point(condition)
        for place, row in enumerate(rows):
            own = condition if place >= start else 0
            values = [made.readings[own, e, *row[:2]] for e in range(0, 2 * N_PROMPTS, 2)]
            assert row[2] == N_PROMPTS
            assert row[3] == pytest.approx(np.mean(values), rel=1e-6)


def test_the_lens_of_a_condition_is_about_the_examples_that_it_changed(made: Made) -> None:
    rows = made.database.query("logit-lens", run=INTERVENED, condition=3, split="all").fetchall()
    assert {row[2] for row in rows} == {N_PROMPTS}
    corrupted = made.database.query("logit-lens", run=INTERVENED, condition=3, split="corrupted")
    assert corrupted.fetchall() == [] and "condition 3" in corrupted.why_empty()


def test_the_figure_has_a_row_for_each_changed_layer() -> None:
    frame = lens_effects(("uniform-weights", {}), layers=(0, 2))
    with matplotlib.style.context(["default", style_file()]):
        ax = plot_lens_effect(frame, Figure().subplots())
        matrix = ax.images[0].get_array()
        assert matrix is not None and matrix.shape == (2, 4)
        # layer 2 was changed: its stream is first read where it enters, after layer 1
        assert matrix.mask.tolist() == [[False] * 4, [True, False, False, False]]
        own = frame[(frame["layer"] == 2) & (frame["place"] == "post")]
        np.testing.assert_array_equal(matrix[1, 1:], own["change_logit_diff"])
        several = lens_effects(("uniform-weights", {}), ("patch", {"site": "residual"}))
        with pytest.raises(UsageError, match=r"one kind of intervention, not 2"):
            plot_lens_effect(several, Figure().subplots())
        with pytest.raises(UsageError, match="no intervention on a whole layer"):
            plot_lens_effect(frame[frame["place"] == "mid"], Figure().subplots())
