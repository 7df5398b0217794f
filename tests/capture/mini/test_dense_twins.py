"""Dense twins of the embedded model: what they share with it, and that their training resumes."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from moedb.capture.mini.card.measuring import write_card
from moedb.capture.mini.config import MiniTrainingConfig, twin_width
from moedb.capture.mini.training import loop
from moedb.capture.mini.training.loop import train_mini
from moedb.capture.models.checkpoints import DENSE_TWINS, find_checkpoint, local_checkpoint
from moedb.capture.models.loading.pretrained import load_tokenizer
from moedb.errors import ModelNotFoundError


def test_the_widths_are_those_of_the_mixture():
    config = MiniTrainingConfig()
    assert twin_width(config, "active") == 4 * 32 + 128 == 256
    assert twin_width(config, "total") == 60 * 32 + 128 == 2048
    for width in ("active", "total"):
        twin = MiniTrainingConfig(d_dense=twin_width(config, width))
        assert twin.model_name == f"qwen-dense-mini-{width}"
        assert twin.model_shape()["intermediate_size"] == twin_width(config, width)
    assert config.model_name == "qwen-moe-mini"
    with pytest.raises(ValueError, match="d_dense is 12, not a multiple of 8"):
        MiniTrainingConfig(d_dense=12)


@pytest.fixture(scope="module")
def trained(tiny_config, corpus, tmp_path_factory):
    """A twin, and the mixture that it is one of."""
    root = tmp_path_factory.mktemp("twins")
    twin = tiny_config.model_copy(update={"d_dense": twin_width(tiny_config, "active")})
    return (
        train_mini(twin, corpus, root / "twin"),
        train_mini(tiny_config, corpus, root / "mixture"),
    )


def summary(folder):
    return json.loads((folder / "training.json").read_text("utf-8"))


def test_a_twin_is_trained_on_the_tokens_of_the_mixture(trained):
    twin, mixture = trained
    assert (twin / "tokenizer.json").read_bytes() == (mixture / "tokenizer.json").read_bytes()
    for key in ("corpus_sha256", "corpus_tokens", "ioi_tokens", "step"):
        assert summary(twin)[key] == summary(mixture)[key]
    text = "if x < 10:\n    return 12345"
    first, second = (load_tokenizer(local_checkpoint(folder)) for folder in trained)
    assert first(text)["input_ids"] == second(text)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(twin)
    assert model.config.model_type == "qwen2"
    assert model.model.layers[0].mlp.down_proj.in_features == 2 * 8 + 8
    assert not any("unused_experts" in line for line in summary(twin)["history"])


def test_a_twin_that_was_stopped_resumes_to_the_same_bits(
    trained, tiny_config, corpus, tmp_path, monkeypatch
):
    twin = tiny_config.model_copy(update={"d_dense": twin_width(tiny_config, "active")})
    written = loop.write_checkpoint

    def stop(*given):
        written(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train_mini(twin, corpus, tmp_path)
    monkeypatch.undo()
    train_mini(twin, corpus, tmp_path)
    first, second = (load_file(folder / "model.safetensors") for folder in (trained[0], tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_card_of_a_twin_says_what_it_is_a_twin_of(trained, corpus, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "model")
    text = write_card(folder, corpus).read_text("utf-8")
    assert text.startswith("---\nlicense: mit\n") and "- qwen2\n" in text and "moe_" not in text
    assert "# qwen-dense-mini-active" in text and "A Qwen2ForCausalLM of 2 layers" in text
    assert "24 neurons (as many as a token meets in a layer of the mixture: 2 x 8 + 8)" in text
    assert "## Experts" not in text and "load balancing" not in text
    held_out = json.loads((folder / "evaluation.json").read_text("utf-8"))["held_out"]
    assert held_out["tokens"] > 0 and "experts" not in held_out


def test_the_card_of_a_twin_says_how_its_tokenizer_is_loaded(trained, corpus, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "model")
    (code,) = re.findall(r"```python\n(.*?)```", write_card(folder, corpus).read_text(), re.DOTALL)
    names = {}
    exec(code.replace("path/to/this/folder", str(folder)), names)  # noqa: S102
    text = "if x < 10:\n    return 12345"
    expected = load_tokenizer(local_checkpoint(trained[1]))(text)["input_ids"]
    assert names["tokenizer"](text)["input_ids"] == expected


def test_a_twin_that_is_not_there_says_how_it_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="total does not come with moedb") as refused:
        find_checkpoint("qwen-dense-mini-total")
    assert "moedb train qwen-dense-mini --width total" in str(refused.value.hint)
    assert set(DENSE_TWINS.values()) == {"active", "total"}
