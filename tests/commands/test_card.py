"""What was measured of trained models, off their cards."""

import json
import shutil
from pathlib import Path

import pytest

from moedb.capture.models.checkpoints import find_checkpoint
from moedb.cli import run_cli

EMBEDDED = find_checkpoint("qwen-moe-mini").folder


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that was asked about no templates but its own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "other"
    shutil.copytree(EMBEDDED, folder)
    told = json.loads((folder / "evaluation.json").read_text())
    told["model"] |= {"name": "other", "parameters": 77}
    told["held_out"]["perplexity"]["all"] |= {"model": 12.3456, "5-gram": 23.4567}
    told["ioi"]["published"] = None
    told["training"]["seconds"] = 90.0
    (folder / "evaluation.json").write_text(json.dumps(told))
    return folder


def test_a_row_for_each_model(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["card", "qwen-moe-mini", "./other", "--format", "json"]) == 0
    embedded, row = json.loads(capsys.readouterr().out)
    told = json.loads((EMBEDDED / "evaluation.json").read_text())
    assert embedded["model"] == "qwen-moe-mini"
    assert embedded["active_parameters"] == told["model"]["active_parameters"]
    assert embedded["perplexity"] == told["held_out"]["perplexity"]["all"]["model"]
    assert embedded["ioi_accuracy_other"] == told["ioi"]["published"]["accuracy"]
    assert embedded["weights_sha256"] == told["model"]["weights_sha256"]
    assert (row["model"], row["parameters"], row["ioi_accuracy_other"]) == ("other", 77, None)
    assert (row["perplexity"], row["perplexity_ngram"]) == (12.3456, 23.4567)
    assert row["minutes"] == 1.5


def test_a_table_of_a_page_has_no_line_below(other: Path) -> None:
    assert run_cli(["card", "./other", "--columns", "model,perplexity", "-o", "cards.md"]) == 0
    lines = Path("cards.md").read_text().splitlines()
    assert len(lines) == 3 and lines[2].replace(" ", "") == "|other|12.346|"
    assert Path("cards.md.provenance.json").is_file()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"model": {}}', '{"model": {"name": "x"}}'])
def test_a_model_without_a_card(
    text: str | None, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other / "evaluation.json").unlink()
    if text is not None:
        (other / "evaluation.json").write_text(text)
    assert run_cli(["card", "./other"]) == 2
    said = capsys.readouterr().err
    assert "other has no card of a model that moedb trained: evaluation.json" in said
    assert "python -m moedb.capture.mini.card.measuring --model" in said
