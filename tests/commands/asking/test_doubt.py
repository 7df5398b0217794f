"""Intervals, chance and comparisons from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from moedb.cli import run_cli
from moedb.commands.asking import doubt
from moedb.queries.analyses.registry import ANALYSES, find_question
from moedb.queries.analyses.uncertainty.over_trials import OVER_TRIALS
from moedb.queries.analyses.uncertainty.resampling.settings import METHODS
from moedb.queries.analyses.uncertainty.without import CHANCE, WITHOUT, no_chance, no_intervals
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.query_file import NamedQuery
from tests.support.stores.made.planted import write_planted

Run = Callable[..., tuple[int, str, str]]

ONE, BENT = "text-0000000a1d", "text-0000000c3f"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doubt") / "store"
    write_planted(folder, 40, seed=3, run_id=ONE)
    write_planted(folder, 40, seed=3, run_id=BENT, bent=2.0)
    return folder


@pytest.fixture
def moedb(
    store: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setenv("MOEDB_STORE", str(store))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_intervals_and_chance_stand_beside_estimates(moedb: Run) -> None:
    asked = ("query", "load-balance", "-r", ONE, "--samples", "200", "--seed", "3")
    code, out, err = moedb(*asked, "--ci", "--null", "--format", "csv")
    assert code == 0
    head = out.splitlines()[0].split(",")
    at = head.index("gini")
    assert head[at : at + 8] == [
        "gini", "gini_low", "gini_high", "gini_null", "gini_null_low", "gini_null_high", "gini_p",
        "gini_q"]  # fmt: skip
    assert "BCa bootstrap over 40 examples, 200 draws, seed 3" in err
    assert "chance: each decision takes any expert of the layer alike, 200 times, seed 3" in err


def test_a_method_may_follow_ci(moedb: Run) -> None:
    code, _, err = moedb("query", "load-balance", "-r", ONE, "--ci", "jackknife")
    assert code == 0
    assert "jackknife over 40 examples" in err
    code, _, err = moedb("query", "--ci", "load-balance")
    assert code == 2
    assert "'load-balance' is not one of 'bca', 'percentile', 'jackknife'" in err


def test_several_runs_have_intervals_each(moedb: Run) -> None:
    asked = ("query", "load-balance", "-r", f"{ONE},{BENT}", "--ci", "percentile")
    code, out, _ = moedb(*asked, "--samples", "100", "--format", "csv")
    assert code == 0
    assert out.splitlines()[0].startswith("run,layer,n_experts")
    assert len(out.splitlines()) == 3
    assert "gini_low" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--samples", "200"), "--samples is for intervals"),
        (("--ci", "--samples", "5"), "samples is 5, not from 100"),
        (("--ci", "--cluster", "topik"), "did you mean topic"),
        (("--null", "--samples", "0"), "0 is not in the range"),
        (("--compare", "layer=1", "layer=2"), "no row with layer '2'"),
        (("--ci", "--engine", "spark"), "found on one machine"),
    ],
)
def test_wrong_options_are_explained(moedb: Run, options: tuple[str, ...], said: str) -> None:
    code, out, err = moedb("query", "load-balance", "-r", ONE, *options)
    assert (code, out) == (2, "")
    assert said in err


def test_two_runs_side_by_side(moedb: Run) -> None:
    code, out, err = moedb("compare", ONE, BENT, "--samples", "200", "--top", "3")
    assert code == 0
    settings, _, routing = out.partition("\n\n")
    # the same made-up model and data, routed otherwise
    assert "setting" not in settings or "model_sha256" not in settings
    rows = routing.strip().splitlines()[2:]
    assert len(rows) == 3
    shares = [abs(float(row.split()[9])) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert "drawn together" in err
    code, _, err = moedb("compare", ONE, ONE)
    assert code == 2
    assert "the same run" in err


def test_a_comparison_is_exported_and_checked(moedb: Run) -> None:
    asked = ("export", "routing-by-class", "-r", ONE, "-p", "key", "topic", "--samples", "100")
    assert moedb(*asked, "--compare", "value=x", "value=y", "-o", "d.csv")[0] == 0
    told = json.loads(Path("d.csv.provenance.json").read_text(encoding="utf-8"))
    assert told["parameters"]["compare"] == ["value=x", "value=y"]
    assert told["intervals"]["settings"]["samples"] == 100
    frame = pd.read_csv("d.csv")
    assert ((frame["rate_difference_low"] > 0) | (frame["rate_difference_high"] < 0)).any()
    code, out, _ = moedb("export", "--check", "d.csv")
    assert code == 0
    assert "same" in out


def test_the_command_line_offers_every_method() -> None:
    assert doubt.METHODS == METHODS


def test_help_says_what_can_be_asked(moedb: Run) -> None:
    code, out, _ = moedb("query", "overlap", "--help")
    assert code == 0
    assert "How sure:" in out
    assert "--null  what shuffled labels give of jaccard" in out
    assert "none: weights are no sample" in " ".join(
        moedb("query", "expert-similarity", "--help")[1].split()
    )
    assert "Student's t over the trials of each row" in " ".join(
        moedb("query", "class-correlation", "--help")[1].split()
    )


def test_every_question_has_intervals_or_says_why_it_has_none() -> None:
    own = {"samples", "permutations"}
    for question in (*catalog().values(), *ANALYSES.values()):
        told = [
            question.name in OVER_TRIALS,
            question.name in WITHOUT,
            bool(own & {parameter.name for parameter in question.parameters}),
            isinstance(question, NamedQuery) and bool(question.estimates),
        ]
        assert sum(told) == 1, question.name
    for name in CHANCE:
        assert "by itself: " in str(no_chance(find_question(name)))
    for name in WITHOUT:
        error = no_intervals(find_question(name))
        assert "has no intervals: " in str(error)
        assert len(error.args[0]) < 200
        assert error.hint
