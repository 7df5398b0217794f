"""The model that comes with the package does what its card says."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.jobs.qwen_ioi import (
    generate_prompts,
    is_held_out_pair,
    load_ioi_templates,
    single_token_names,
    token_roles,
)
from moedb.capture.mini.card.text import render_card
from moedb.capture.mini.config import MiniTrainingConfig

FOLDER = Path(str(resources.files("moedb.capture.mini"))) / "data" / "qwen-moe-mini"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason="qwen-moe-mini is not trained yet"
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(FOLDER), local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(
        str(FOLDER), local_files_only=True, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def evaluation():
    return json.loads((FOLDER / "evaluation.json").read_text("utf-8"))


def test_shape_and_size(model, tokenizer):
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000
    shape = model.config
    assert shape.model_type == "qwen2_moe"
    assert (shape.num_hidden_layers, shape.num_experts, shape.num_experts_per_tok) == (6, 60, 4)
    assert shape.norm_topk_prob is False
    assert shape.vocab_size == len(tokenizer) == 4096
    assert shape.pad_token_id == tokenizer.pad_token_id
    assert shape.eos_token_id == tokenizer.eos_token_id


def test_tokenizer(tokenizer):
    assert not single_token_names(load_ioi_templates().names, tokenizer)[1]
    assert tokenizer.is_fast
    assert tokenizer.padding_side == "right"
    text = "def f(x):\n\treturn x  # naïve €"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_published_names_are_single_tokens(tokenizer, shared_data):
    published = load_ioi_templates(shared_data / "ioi" / "ioi.json")
    assert not single_token_names(published.names, tokenizer)[1]


def test_ioi_accuracy_on_unseen_pairs(model, tokenizer):
    prompts = generate_prompts(
        load_ioi_templates(), tokenizer, 300, seed=77, pair_filter=is_held_out_pair
    ).prompts
    right = 0
    for prompt in prompts:
        inputs = tokenizer(prompt.text, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        roles = token_roles(prompt, offsets)
        assert [roles.count(role) for role in ("io", "s1", "s2", "end")] == [1, 1, 1, 1]
        with torch.no_grad():
            logits = model(**inputs).logits[0, roles.index("end")]
        right += bool(logits[prompt.io_token_id] > logits[prompt.s_token_id])
    assert right / len(prompts) >= 0.95


def test_card_belongs_to_the_weights(evaluation):
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert evaluation["model"]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (FOLDER / "README.md").read_text("utf-8") == render_card(evaluation)


def test_default_configuration_is_that_of_the_model(evaluation):
    assert MiniTrainingConfig(**evaluation["training"]["config"]) == MiniTrainingConfig()


def test_no_published_sentence_is_in_the_folder(shared_data):
    published = load_ioi_templates(shared_data / "ioi" / "ioi.json")
    for file in ("README.md", "evaluation.json", "training.json"):
        text = (FOLDER / file).read_text("utf-8")
        assert not any(template in text for template in published.templates_baba)


def test_what_the_card_must_show(evaluation):
    assert evaluation["ioi"]["own"]["accuracy"] >= 0.95
    held_out = evaluation["held_out"]
    for row in held_out["perplexity"].values():
        assert row["model"] < row["unigram"]
    assert held_out["permutations"] >= 20
    for row in held_out["experts"]:
        assert row["unused"] == 0
        assert row["domain_information_bits"] > row["null_max_bits"]
