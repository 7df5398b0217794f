import json
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import TrainingBatch, pad_rows
from moedb.capture.mini.training import loop as training
from moedb.capture.mini.training.loop import train_mini
from moedb.capture.mini.training.optimization import (
    batch_losses,
    build_model,
    learning_rate,
    load_balancing_loss,
)
from moedb.capture.models import training_checkpoints as training_state
from moedb.errors import ModelError, UsageError


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def trained(tiny_config, corpus, tmp_path_factory):
    return train_mini(tiny_config, corpus, tmp_path_factory.mktemp("trained") / "model")


def kill_at(monkeypatch, step):
    """Let training fail before a step, once."""
    advance = training._Run._advance

    def killed(self):
        if self.step == step:
            raise KilledError
        return advance(self)

    monkeypatch.setattr(training._Run, "_advance", killed)


def test_load_balancing_loss_by_hand():
    # 2 tokens, 3 experts, top 1. Token 0 -> expert 0 with p (1/2, 1/4, 1/4); token 1 -> expert 2
    # with p (1/4, 1/4, 1/2). f = (1/2, 0, 1/2), P = (3/8, 1/4, 3/8): 3 (3/16 + 3/16) = 9/8.
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))
    assert load_balancing_loss(logits, 1).item() == pytest.approx(9 / 8)
    # top 2 of even scores on 4 experts, each chosen as often
    even = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert load_balancing_loss(even, 2).item() == pytest.approx(1.0)


def test_load_balancing_loss_is_largest_on_collapse():
    logits = torch.full((5, 8), -20.0)
    logits[:, 3] = 20.0
    assert load_balancing_loss(logits, 1).item() == pytest.approx(8.0)


def test_load_balancing_loss_has_a_gradient_towards_balance():
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    load_balancing_loss(logits, 1).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()


def test_learning_rate_schedule():
    config = MiniTrainingConfig(
        steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1
    )
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 55) == pytest.approx(0.55)
    assert learning_rate(config, 100) == pytest.approx(0.1)


def test_model_has_the_topology_of_qwen_moe(tiny_tokenizer):
    shape = build_model(MiniTrainingConfig(vocab_size=1600), tiny_tokenizer).config
    assert shape.model_type == "qwen2_moe"
    assert (shape.num_experts, shape.num_experts_per_tok) == (60, 4)
    assert shape.norm_topk_prob is False
    assert shape.decoder_sparse_step == 1


def test_trained_folder_loads(trained, tiny_config):
    tokenizer = AutoTokenizer.from_pretrained(str(trained), local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(str(trained), local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id
    logits = model(**tokenizer("Then Amy met", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    assert not (trained / "checkpoints").exists()
    summary = json.loads((trained / "training.json").read_text())
    assert summary["step"] == tiny_config.steps
    assert summary["config"] == tiny_config.model_dump()
    assert summary["corpus_tokens"] > 0


def test_routers_give_logits(trained):
    model = AutoModelForCausalLM.from_pretrained(str(trained), dtype=torch.float32)
    seen = {}
    block = model.model.layers[0].mlp
    handle = block.gate.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        out = model.model(input_ids=torch.tensor([[5, 6, 7]]), output_router_logits=True)
    handle.remove()
    expected = seen["x"].reshape(3, -1) @ block.gate.weight.T
    assert torch.allclose(out.router_logits[0], expected, atol=1e-6)


@pytest.mark.parametrize("step", [1, 5, 6])
def test_a_killed_run_ends_as_an_uninterrupted_one(
    trained, tiny_config, corpus, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(KilledError):
            train_mini(tiny_config, corpus, tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    resumed = train_mini(tiny_config, corpus, tmp_path / "model")
    expected = load_file(trained / "model.safetensors")
    found = load_file(resumed / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    summaries = [json.loads((f / "training.json").read_text()) for f in (trained, resumed)]
    assert summaries[0]["corpus_tokens"] == summaries[1]["corpus_tokens"]


def test_a_half_written_checkpoint_is_not_seen(trained, tiny_config, corpus, tmp_path, monkeypatch):
    def fail(path, content):
        if path.name == "state.json" and content["step"] == 4:
            raise KilledError
        return write_json(path, content)

    write_json = training_state.write_json
    with monkeypatch.context() as patch:
        patch.setattr(training_state, "write_json", fail)
        with pytest.raises(KilledError):
            train_mini(tiny_config, corpus, tmp_path / "model")
    names = {p.name for p in (tmp_path / "model" / "checkpoints").iterdir()}
    assert "step-00000002" in names
    assert "step-00000004" not in names
    resumed = train_mini(tiny_config, corpus, tmp_path / "model")
    expected = load_file(trained / "model.safetensors")
    found = load_file(resumed / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_finished_run_is_left_alone(trained, tiny_config, corpus, monkeypatch):
    kill_at(monkeypatch, 0)
    before = (trained / "model.safetensors").stat().st_mtime_ns
    assert train_mini(tiny_config, corpus, trained) == trained
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_refused(trained, tiny_config, corpus, write_corpus, tmp_path):
    other = tiny_config.model_copy(update={"seed": 5})
    with pytest.raises(UsageError, match="holds a run with seed 0, not 5"):
        train_mini(other, corpus, trained)
    other_corpus = write_corpus(tmp_path / "other.parquet", 30)
    with pytest.raises(UsageError, match="another corpus"):
        train_mini(tiny_config, other_corpus, trained)


def test_without_resume_the_folder_is_trained_anew(trained, tiny_config, corpus, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    other = tiny_config.model_copy(update={"steps": 1, "seed": 5})
    train_mini(other, corpus, folder, resume=False)
    assert json.loads((folder / "training.json").read_text())["step"] == 1


def test_damaged_checkpoint(tiny_config, corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(KilledError):
            train_mini(tiny_config, corpus, tmp_path / "model")
    file = tmp_path / "model" / "checkpoints" / "step-00000002" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match="damaged checkpoint"):
        train_mini(tiny_config, corpus, tmp_path / "model")


def test_a_loss_that_is_no_number_stops_the_run(tiny_config, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_balancing_loss", lambda logits, k: logits.sum() * np.nan)
    with pytest.raises(ModelError, match="loss is nan at step 0"):
        train_mini(tiny_config, corpus, tmp_path / "model")


def test_padding_changes_no_loss(tiny_config, tiny_tokenizer):
    """Rows of different lengths in one batch weigh as they do alone."""
    model = build_model(tiny_config, tiny_tokenizer).eval()
    long, short = np.arange(10, 22), np.arange(30, 34)
    ids, mask = pad_rows([long, short], 1)
    batch = TrainingBatch(ids, mask, mask.astype(np.float32), np.zeros_like(mask))
    with torch.no_grad():
        loss, _, routing = batch_losses(model, batch)
        alone = [
            model(input_ids=torch.from_numpy(r)[None], labels=torch.from_numpy(r)[None]).loss.item()
            for r in (long, short)
        ]
    n = [len(long) - 1, len(short) - 1]
    assert loss.item() == pytest.approx(np.average(alone, weights=n), rel=1e-4)
    assert all(len(scores) == len(long) + len(short) for scores in routing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 61}, "top_k is 61"),
        ({"n_heads": 3}, "d_model is 128"),
        ({"d_expert": 12}, "d_expert is 12"),
        ({"corpus_tokens_per_step": 100}, "less than a piece"),
        ({"steps": 0}, "steps"),
        ({"lr": 1}, "lr"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValidationError, match=message):
        MiniTrainingConfig(**changes)
