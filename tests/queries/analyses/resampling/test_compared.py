"""Differences between two sides: against numpy, where there is one, and where there is none."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

import moedb
from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.comparing.power import (
    power_note,
    smallest_shown,
    standard_errors,
)
from moedb.queries.analyses.uncertainty.resampling.draws import drawn_again, left_out
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.database import Database
from tests.support.stores.made.planted import LIKED, N_EXPERTS, write_planted

ONE, OTHER, BENT = "text-0000000a1d", "text-0000000b2e", "text-0000000c3f"
N = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared") / "store"
    write_planted(folder, N, seed=3, run_id=ONE)
    write_planted(folder, N, seed=3, run_id=BENT, bent=2.0)
    write_planted(folder, N, seed=8, run_id=OTHER, dataset_sha256="ef" * 32)
    return folder


@pytest.fixture
def db(store: Path) -> Iterator[Database]:
    with moedb.open(store) as database:
        yield database


def counts_of(db: Database, run: str) -> tuple[np.ndarray, np.ndarray]:
    """(example, expert) decisions, and (example,) tokens."""
    decisions = db.sql(
        "select example_id, expert from routing join tokens using (run_id, token_idx) "
        "where run_id = $run",
        {"run": run},
    ).df()
    counts = np.zeros((N, N_EXPERTS))
    np.add.at(counts, (decisions["example_id"], decisions["expert"]), 1)
    return counts, counts.sum(axis=1) / 2


def test_runs_of_the_same_examples_are_drawn_together(db: Database) -> None:
    settings = Resampling("percentile", samples=500, seed=4)
    found = db.resampled(settings).compare("expert-frequency", f"run={BENT}", f"run={ONE}")
    (of_one, n_tokens), (of_bent, _) = counts_of(db, ONE), counts_of(db, BENT)
    weights = drawn_again(N, 500, 4)
    drawn = weights @ (of_bent - of_one) / (weights @ n_tokens)[:, None]
    rows = found.df()
    np.testing.assert_allclose(
        rows["frequency_difference"], (of_bent - of_one).sum(axis=0) / n_tokens.sum()
    )
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    np.testing.assert_allclose(rows["frequency_difference_low"], low)
    np.testing.assert_allclose(rows["frequency_difference_high"], high)
    assert "drawn together" in found.footer
    assert {run.run_id for run in found.provenance.runs} == {ONE, BENT}


def test_runs_of_other_examples_are_drawn_apart(db: Database) -> None:
    settings = Resampling("percentile", samples=4000)
    found = db.resampled(settings).compare("expert-frequency", f"run={ONE}", f"run={OTHER}")
    assert "drawn apart" in found.footer
    rows = found.df()
    spread = 0.0
    for run in (ONE, OTHER):
        counts, n_tokens = counts_of(db, run)
        rate = counts[:, 2].sum() / n_tokens.sum()
        # the delta method of a ratio of two sums
        spread += ((counts[:, 2] - rate * n_tokens) ** 2).sum() / n_tokens.sum() ** 2
    half = (rows["frequency_difference_high"] - rows["frequency_difference_low"])[2] / 2
    assert half == pytest.approx(1.96 * np.sqrt(spread), rel=0.1)
    # both are drawn from the same population
    holds = (rows["share_difference_low"] <= 0) & (rows["share_difference_high"] >= 0)
    assert holds.sum() >= N_EXPERTS - 1


def test_a_planted_difference_is_found_and_a_coin_makes_none(db: Database) -> None:
    told = db.compare("routing-by-class", "value=x", "value=y", run=ONE, key="topic").df()
    idle = db.compare("routing-by-class", "value=heads", "value=tails", run=ONE, key="coin").df()
    assert told.columns[:2].tolist() == ["layer", "expert"]
    signs = np.sign(np.array(LIKED["x"]) - np.array(LIKED["y"]))
    assert signs[0] == 1
    assert signs[5] == -1
    assert told["rate_difference_low"][0] > 0
    assert told["rate_difference_high"][5] < 0
    holds = (idle["rate_difference_low"] <= 0) & (idle["rate_difference_high"] >= 0)
    assert holds.sum() >= N_EXPERTS - 1


class TestPower:
    def test_standard_errors_of_a_mean_are_those_of_the_textbook(self) -> None:
        values = np.random.default_rng(2).normal(size=(30, 2)) * [1, 3]
        wanted = values.std(axis=0, ddof=1) / np.sqrt(30)
        weights = drawn_again(30, 20_000, 1)
        without = left_out(30, 1)
        drawn = weights @ values / 30
        others = without @ values / 29
        np.testing.assert_allclose(standard_errors(drawn, others, 30), wanted, rtol=0.03)
        np.testing.assert_allclose(standard_errors(drawn[:0], others, 30), wanted)
        assert np.isnan(standard_errors(np.ones((50, 1)), np.ones((30, 1)), 30)).all()

    @pytest.mark.parametrize("n", [8, 20, 80])
    def test_four_of_five_differences_of_that_size_are_told_from_none(self, n: int) -> None:
        rng = np.random.default_rng(n)
        true = smallest_shown(np.array([1 / np.sqrt(n)]), n)
        values = true + rng.normal(size=(n, 20_000))
        p_values = ttest_1samp(values, 0).pvalue
        assert (p_values < 0.05).mean() == pytest.approx(0.8, abs=0.03)

    def test_is_said_of_few_clusters_in_one_line(self, db: Database) -> None:
        found = db.compare("expert-frequency", f"run={BENT}", f"run={ONE}")
        (said,) = re.findall(r"60 clusters show .* with 80 % power .*?;", found.footer)
        rows = found.df()
        half = rows["frequency_difference_high"] - rows["frequency_difference_low"]
        # an interval is 2 x 2 standard errors wide, and this is 2.85 of them
        wanted = (half / 4).median() * 2.85
        (told,) = re.findall(r"from ([\d.e-]+) in frequency", said)
        assert float(told) == pytest.approx(wanted, rel=0.15)
        assert power_note(["rate"], np.ones((3, 1)), 100) is None
        assert power_note(["rate"], np.full((3, 1), np.nan), 10) is None

    def test_of_classes_the_clusters_that_have_them_are_counted(self, db: Database) -> None:
        found = db.compare("routing-by-class", "value=x", "value=y", run=ONE, key="topic")
        sizes = db.sql(
            "select count(distinct example_id) from labels where run_id = $run and key = 'topic' "
            "and value in ('x', 'y') group by value",
            {"run": ONE},
        ).fetchall()
        fewest = min(n for (n,) in sizes)
        assert fewest < N
        assert f"{fewest} clusters show" in found.footer


def test_the_same_file_comes_out_again(db: Database, tmp_path: Path) -> None:
    from moedb.queries.report.pinned import check_file

    path = tmp_path / "difference.csv"
    resampled = db.resampled(Resampling(samples=100, seed=2))
    result = resampled.compare("load-balance", f"run={ONE}", f"run={BENT}")
    moedb.export(result, path)
    assert check_file(db, path).status == "same"
    path.write_text(path.read_text(encoding="utf-8") + "1\n", encoding="utf-8")
    assert check_file(db, path).status == "edited"


@pytest.mark.parametrize(
    ("name", "sides", "given", "said"),
    [
        ("load-balance", ("layer", "layer=1"), {}, "a side is KEY=VALUE"),
        ("load-balance", ("layer=1", "split=all"), {}, "of two keys, 'layer' and 'split'"),
        ("load-balance", ("lair=1", "lair=2"), {}, "called 'lair'; did you mean layer"),
        ("load-balance", ("layer=1", "layer=1"), {}, "both sides are layer=1"),
        ("load-balance", ("layer=1", "layer=9"), {}, "no row with layer '9'"),
        ("routing-by-example", ("layer=1", "layer=2"), {}, "there is nothing to draw again"),
        ("class-correlation", ("layer=1", "layer=2"), {}, "no differences of two sides"),
        ("routing-by-class", ("value=x", "value=z"), {"key": "topic"}, "no row with value 'z'"),
        ("overlap", (f"run={ONE}", f"run={BENT}"), {"run_b": OTHER}, "compares two runs by itself"),
    ],
)
def test_wrong_sides_are_refused(
    db: Database, name: str, sides: tuple[str, str], given: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        db.compare(name, *sides, **given)
