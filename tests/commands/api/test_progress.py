"""What is said of captures, trainings and long analyses where stderr is no terminal."""

import time

import pytest

from moedb.commands.api import progress
from moedb.commands.api.progress import RichProgress, TrainingBar, analysis_progress, how_far


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.05)


def test_a_capture_that_is_piped_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress() as bar:
        time.sleep(0.2)
        bar.begin(1000, 400)
        bar.advance(100)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "the model is made ready"
    assert lines[-1].startswith("500 of 1,000 tokens (50 %), ")
    assert lines[-1].endswith(" left")
    time.sleep(0.15)
    assert capsys.readouterr().err == ""  # nothing once it is over


def test_a_training_that_is_piped_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar() as bar:
        bar.begin("trial", 200, 0)
        bar.advance(50, 1.25)
        time.sleep(0.2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("trial: 50 of 200 images (25 %), ")
    assert line.endswith(" left, loss 1.250")


def test_an_analysis_that_is_piped_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with analysis_progress("layers", 4) as advance:
        advance()
        time.sleep(0.2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("1 of 4 layers (25 %), ")


def test_what_is_short_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 30.0)
    with RichProgress() as bar:
        bar.begin(10, 0)
        bar.advance(10)
    with analysis_progress("layers", 1) as advance:
        advance()
    assert capsys.readouterr().err == ""


def test_how_far_counts_from_what_was_done_before() -> None:
    assert how_far("tokens", 900, 1000, 10.0, 800) == (
        "900 of 1,000 tokens (90 %), 10/s, about 10 s left"
    )
    assert how_far("layers", 1, 31, 120.0) == "1 of 31 layers (3 %), 0.5/min, about 60 min left"
    assert how_far("tokens", 0, 0, 0.0) == "0 of 0 tokens (100 %)"
