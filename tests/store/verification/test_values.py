"""A run whose checksums hold but whose values cannot be true."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moedb.errors import StoreDamagedError
from moedb.schemas.tables import ROUTER_MASS
from moedb.store.arrays.stored import ArrayKey
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import N_EXPERTS, RUN_ID, sample_manifest, unit_rows

Change = Callable[[dict[str, Any], dict[ArrayKey, Any]], None]


def repeat_expert(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    tables["routing"]["expert"][1] = tables["routing"]["expert"][0]


def expert_out_of_range(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    tables["routing"]["expert"][0] = 4


def wrong_rank(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    tables["routing"]["rank"][1] = 2


def wrong_weight(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    tables["routing"]["weight"][3] *= 1.001


def wrong_output(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    arrays[ArrayKey("expert_outputs", 3)][2, 1] *= -1


def missing_layer(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    keep = np.asarray(tables["routing"]["layer"]) == 1
    for name, values in tables["routing"].items():
        tables["routing"][name] = np.asarray(values)[keep]


def wrong_token_count(tables: dict[str, Any], arrays: dict[ArrayKey, Any]) -> None:
    tables["examples"]["n_tokens"] = [4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (repeat_expert, "each with another expert"),
        (expert_out_of_range, "experts out of range"),
        (wrong_rank, "ranks are not 0 to top_k - 1"),
        (wrong_weight, "layer 1: weights against the router's rule"),
        (wrong_output, "layer 3: expert outputs against the block's output"),
        (missing_layer, "tokens that lack a layer"),
        (wrong_token_count, "token count is wrong"),
    ],
)
def test_a_contradiction_is_found(tmp_path: Path, change: Change, message: str) -> None:
    manifest = sample_manifest(n_units=1)
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin({})
    tables, arrays = unit_rows(manifest, 0)
    change(tables, arrays)
    writer.commit_unit(0, tables, arrays)
    writer.finish()
    with pytest.raises(StoreDamagedError, match=message):
        verify_run(read_run(tmp_path / "store", RUN_ID))


def rolled_up(tables: dict[str, Any]) -> dict[str, list[Any]]:
    """What the decisions of the one example of a unit add up to, for every expert."""
    routing = tables["routing"]
    rows: dict[str, list[Any]] = {name: [] for name in ROUTER_MASS.column_names[1:]}
    for layer in sorted(set(routing["layer"])):
        for expert in range(N_EXPERTS):
            weights = [
                float(np.float32(weight))
                for at, chosen, weight in zip(
                    routing["layer"], routing["expert"], routing["weight"], strict=True
                )
                if (at, chosen) == (layer, expert)
            ]
            for name, value in (
                ("example_id", 0),
                ("layer", layer),
                ("expert", expert),
                ("probability", 1.0),
                ("n_decisions", len(weights)),
                ("weight", sum(weights)),
            ):
                rows[name].append(value)
    return rows


@pytest.mark.parametrize(
    ("column", "change"), [("n_decisions", 1), ("weight", 1e-5), (None, 0), ("weight", None)]
)
def test_roll_ups_are_held_against_the_decisions(
    tmp_path: Path, column: str | None, change: float | None
) -> None:
    manifest = sample_manifest(n_units=1)
    writer = RunWriter(tmp_path / "store", manifest)
    writer.begin({})
    tables, arrays = unit_rows(manifest, 0)
    mass = rolled_up(tables)
    if column is not None:
        mass[column][3] = None if change is None else mass[column][3] + change
    writer.commit_unit(0, {**tables, "router_mass": mass}, arrays)
    writer.finish()
    run = read_run(tmp_path / "store", RUN_ID)
    if column is None:
        assert verify_run(run).n_decisions == 20
        return
    with pytest.raises(StoreDamagedError, match="1 roll-ups by example that are not"):
        verify_run(run)
