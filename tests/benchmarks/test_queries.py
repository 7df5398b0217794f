"""The queries that the benchmark has by hand, against those of moedb, over a tiny store."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.queries import measuring, report
from benchmarks.queries.cases import CASES, Case, not_timed
from benchmarks.queries.measuring import MOEDB, NUMPY, POLARS, Effort
from benchmarks.queries.synthetic.routers import to_bfloat16
from benchmarks.queries.synthetic.settings import Settings
from benchmarks.queries.synthetic.stores import Written, write_store
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog
from tests.support.oracles.oracle import ASKED_FOR

BY_HAND = [case for case in CASES if case.by_hand is not None]
DOCUMENTS = Settings("text", tokens=1700, example_tokens=70, layers=3, experts=12, top_k=4)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("stores") / "tiny"
    return write_store(folder, DOCUMENTS, prompt_tokens=20, n_runs=3)


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case.name)
def test_the_versions_by_hand_say_what_moedb_says(case: Case, written: Written) -> None:
    ways = measuring.ways(case, written)
    ours = ways[MOEDB]()
    assert len(ours)
    assert set(ways) == {MOEDB, NUMPY} | ({POLARS} if measuring.HAS_POLARS else set())
    for way in set(ways) - {MOEDB}:
        measuring.check_same(case, ours, ways[way](), way)


@pytest.mark.parametrize("column", ["expert", "n_decisions", "frequency"])
def test_a_baseline_that_says_something_else_is_refused(column: str, written: Written) -> None:
    (case, *_) = BY_HAND
    ways = measuring.ways(case, written)
    theirs = ways[NUMPY]()
    wrong = theirs[column].copy()
    wrong[5] *= 1.00001 if column == "frequency" else 2
    with pytest.raises(AssertionError, match=f"{column} of row 5"):
        measuring.check_same(case, ways[MOEDB](), theirs | {column: wrong}, NUMPY)


def test_every_named_query_is_asked_and_what_is_left_out_reads_no_routing(written: Written) -> None:
    asked = {case.query for case in CASES}
    added = {name for name, query in catalog().items() if query.reads_additions} | ASKED_FOR
    assert set(catalog()) - added <= asked
    assert set(not_timed()) == (set(ANALYSES) | added) - asked
    alone = [case for case in CASES if case.by_hand is None]
    for case in alone:
        assert len(measuring.ways(case, written)[MOEDB]())


def test_the_store_is_the_same_when_it_is_written_again(written: Written, tmp_path: Path) -> None:
    before = _contents(written)
    assert write_store(written.folder, DOCUMENTS, prompt_tokens=20, n_runs=3) == written
    assert _contents(written) == before
    again = write_store(tmp_path / "again", DOCUMENTS, prompt_tokens=20, n_runs=3)
    assert _contents(again) == before


def test_a_store_of_other_settings_is_refused(written: Written) -> None:
    (written.folder / "runs" / "text-0000000000").mkdir()
    try:
        with pytest.raises(SystemExit, match="runs of other settings: text-0000000000"):
            write_store(written.folder, DOCUMENTS, prompt_tokens=20, n_runs=3)
    finally:
        (written.folder / "runs" / "text-0000000000").rmdir()


def test_trials_can_be_in_the_same_store(written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    together = write_store(folder, DOCUMENTS, prompt_tokens=20, n_runs=2, one_store=True)
    assert together.trials == folder
    case = next(case for case in CASES if case.run == "trials")
    ours, apart = (measuring.ways(case, store)[MOEDB]() for store in (together, written))
    assert ours.equals(apart)


@pytest.mark.parametrize(
    "wrong", [{"top_k": 12}, {"top_k": 0}, {"layers": 1}, {"example_tokens": 1}]
)
def test_settings_that_make_no_run_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(DOCUMENTS, **wrong)


def test_router_mass_is_the_sum_of_what_the_routers_said(written: Written) -> None:
    mass, stats, tokens = (
        _table(written, name) for name in ("router_mass", "router_stats", "tokens")
    )
    assert mass["probability"].sum() == pytest.approx(len(stats["layer"]), rel=1e-6)
    lengths = np.bincount(tokens["example_id"])
    of_example = np.bincount(mass["example_id"], mass["probability"])
    assert of_example == pytest.approx(DOCUMENTS.layers * lengths, rel=1e-6)
    if "n_decisions" in mass:
        routing = _table(written, "routing")
        assert mass["n_decisions"].sum() == len(routing["expert"])
        assert mass["weight"].sum() == pytest.approx(routing["weight"].sum(), rel=1e-6)


def test_weights_are_rounded_to_bfloat16(written: Written) -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, 0.1], np.float32)
    # of 1 + 2^-8 and 1 + 3 * 2^-8, halfway between neighbours, the even one
    assert to_bfloat16(values).tolist() == [1.0, 1.0, 1.015625, 0.10009765625]
    weights = _table(written, "routing")["weight"]
    assert (weights.view(np.uint32) & 0xFFFF == 0).all()


def test_measured_ways_are_put_into_a_table(written: Written) -> None:
    case = BY_HAND[0]
    n_rows, ways = measuring.measure(case, written, Effort(repeat=2, slow=math.inf, memory=False))
    assert n_rows == DOCUMENTS.layers * DOCUMENTS.experts
    assert all(len(found.seconds) == 2 for found in ways.values())
    answered = report.Answered(case.name, n_rows, ways)
    stores = [report.StoreReport(written, [answered])] * 2
    header, _, row = report.table(stores[0]).splitlines()
    assert header.count("|") == row.count("|")
    assert row.startswith("| expert-frequency | 36 |")
    assert report.growth(stores).splitlines()[-1].endswith("| 1.0 |")


def test_a_slow_way_is_not_repeated(written: Written) -> None:
    _, ways = measuring.measure(BY_HAND[0], written, Effort(repeat=3, slow=0, memory=False))
    assert "moedb, open" not in ways
    assert all(len(found.seconds) == 1 for found in ways.values())


def _table(written: Written, name: str) -> Mapping[str, np.ndarray]:
    files = sorted((written.folder / "runs" / written.text / "tables" / name).glob("*.parquet"))
    rows = pq.read_table(files)
    return {column: rows[column].to_numpy() for column in rows.column_names}


def _contents(written: Written) -> dict[str, object]:
    return {
        f"{path.parent.name}/{path.name[:6]}": pq.read_table(path).to_pydict()
        for path in (written.folder / "runs" / written.text / "tables").rglob("*.parquet")
        if path.parent.name != "runs"  # it says when the run was finished
    }
