import json

import pytest

from moedb.capture.mini.card import measuring as card
from moedb.capture.mini.card.measuring import evaluate, main, write_card
from moedb.capture.mini.card.text import render_card
from moedb.capture.mini.training.loop import train_mini
from moedb.errors import UsageError


@pytest.fixture(scope="module")
def trained(tiny_config, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "model"
    return train_mini(tiny_config.model_copy(update={"evaluate_every": 100}), corpus, folder)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(card, "PROMPTS_PER_TEMPLATE", 4)
    monkeypatch.setattr(card, "PERMUTATIONS", 5)


def test_card_says_what_was_measured(trained, corpus, few, tmp_path):
    templates = tmp_path / "other.json"
    templates.write_text(
        json.dumps(
            {
                "source": "Other sentences",
                "templates_baba": ["So [B] met [A] and [B] hit [A]"],
                "names": ["Michael", "Amy", "Emma", "Jack", "Grace", "Ryan", "Sara", "Paul"],
                "places": [],
                "objects": [],
            }
        )
    )
    path = write_card(trained, corpus, templates)
    evaluation = json.loads((trained / "evaluation.json").read_text())
    text = path.read_text()
    assert text == render_card(evaluation)
    assert text.startswith("---\nlicense:")
    assert "must not be passed off" in text
    assert f"{100 * evaluation['ioi']['own']['accuracy']:.1f} %" in text
    assert evaluation["ioi"]["own"]["n"] == 60
    assert evaluation["ioi"]["published"]["n"] == 4
    assert "Other sentences" in text
    # sentences that are not ours stay out of the folder
    for written in (text, json.dumps(evaluation)):
        assert "So [B] met [A]" not in written
    held_out = evaluation["held_out"]
    assert set(held_out["perplexity"]) == {"all", "fruit", "metal"}
    for row in held_out["perplexity"].values():
        assert min(row["model"], row["unigram"], row["5-gram"]) >= 1
    assert len(held_out["experts"]) == 2
    assert evaluation["sources"][0] == {
        "domain": "fruit",
        "license": "CC0",
        "documents": evaluation["sources"][0]["documents"],
        "characters": evaluation["sources"][0]["characters"],
        "sources": ["made"],
    }


def test_the_same_model_gives_the_same_figures(trained, corpus, few):
    assert evaluate(trained, corpus) == evaluate(trained, corpus)


def test_another_corpus_is_refused(trained, write_corpus, tmp_path):
    with pytest.raises(UsageError, match="not the corpus"):
        evaluate(trained, write_corpus(tmp_path / "other.parquet", 30))


def test_a_folder_without_a_model(tmp_path, corpus, caplog):
    with pytest.raises(UsageError, match="no finished training run"):
        write_card(tmp_path, corpus)
    assert main(["--model", str(tmp_path), "--corpus", str(corpus)]) == 2
    assert "moedb train qwen-moe-mini" in caplog.text
