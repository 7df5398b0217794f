"""The hidden units of shared experts, against plain hooks on the untouched model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import moedb
from moedb.capture.jobs.language import open_language_model
from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.placement import Placement
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.structure.feed_forward import FeedForward, feed_forward
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import ModelError, StoreDamagedError, UsageError
from moedb.schemas.manifests import RunManifest
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.support.models.tiny_models import FAMILIES, tiny_model

pytestmark = pytest.mark.model


def test_the_embedded_models_shared_neurons_are_those_that_hooks_see(tmp_path: Path) -> None:
    run = moedb.capture_ioi(
        tmp_path,
        n=4,
        batch_size=1,
        dtype="float32",
        arrays=["shared_neurons@1,4", "expert_neurons@1"],
    )
    verify_run(read_run(tmp_path, run))
    db = moedb.open(tmp_path)
    stored = db.array(run, "shared_neurons", layer=4)
    assert stored.shape[1:] == (128,) and stored.metadata.dimension_names == ("row", "d_shared")
    with pytest.raises(moedb.MoedbError, match="shared_neurons"):
        db.array(run, "shared_neurons", layer=2)
    folder = find_checkpoint("qwen-moe-mini").folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []
    down = model.model.layers[4].mlp.shared_expert.down_proj
    down.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    rows = db.sql("select token_id from tokens where example_id = 0 order by position").fetchall()
    ids = [row[0] for row in rows]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    expected = seen[0].reshape(-1, 128)
    assert np.array_equal(np.asarray(stored[: len(ids)]), expected.numpy())


WITH_SHARED = [name for name, family in FAMILIES.items() if family.shared]


@pytest.mark.parametrize("name", WITH_SHARED)
def test_the_width_that_is_guessed_is_the_one_that_runs(name: str) -> None:
    model: Any = tiny_model(name, FAMILIES[name].settings)
    blocks = find_blocks(model)
    layers = [block.layer for block in blocks]
    with traced(model, blocks, (), layers) as wrapped:
        batch = wrapped.run([[5, 17, 200]])
        for found in wrapped.wiring.blocks:
            neurons = batch.layers[found.block.layer].shared_neurons
            if found.d_shared:
                assert found.d_shared == found.block.d_shared
                assert neurons is not None and neurons.shape == (3, found.d_shared)
            else:
                assert neurons is None


def test_a_wrong_width_is_refused_before_anything_is_stored() -> None:
    checkpoint = find_checkpoint("qwen-moe-mini")
    outline = ModelOutline.of(checkpoint)
    wrong = [type(block)(**{**vars(block), "d_shared": 96}) for block in outline.blocks]
    outline = ModelOutline(checkpoint, outline.skeleton, tuple(wrong))
    opened = open_language_model(outline, Placement("float32", "cpu"), {"shared_neurons": (2,)})
    with pytest.raises(ModelError, match=r"a hidden layer of 96 units, found none of 128"), opened:
        pass


def test_a_manifest_with_a_width_that_is_none_is_refused(tmp_path: Path) -> None:
    run = moedb.capture_ioi(tmp_path, n=1, arrays=["shared_neurons@0"])
    manifest = read_run(tmp_path, run).manifest
    assert [layer["d_shared"] for layer in manifest.layers] == [128] * 6
    text = manifest.to_json().replace('"d_shared":128', '"d_shared":-1')
    text = text.replace('"d_shared": 128', '"d_shared": -1')
    with pytest.raises(StoreDamagedError, match="d_shared: expected 0 or more, got -1"):
        RunManifest.from_json(text, "run.json", 1)


def test_a_model_without_a_shared_expert_gives_no_shared_neurons(tmp_path: Path) -> None:
    mixtral: Any = tiny_model("mixtral", {})
    folder = tmp_path / "mixtral"
    mixtral.save_pretrained(folder)
    for file in find_checkpoint("qwen-moe-mini").folder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    text = tmp_path / "texts.txt"
    text.write_text("a")
    with pytest.raises(UsageError, match="this model gives no shared_neurons"):
        moedb.capture_text(text, tmp_path / "store", model=folder, arrays=["shared_neurons"])


class Attention(nn.Module):
    """As wide as a feed-forward layer, but called with more than hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.out(self.qkv(hidden_states))  # type: ignore[no-any-return]


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(8, 32), nn.Linear(16, 8)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(hidden_states).chunk(2, -1)
        return self.down(gate * up)  # type: ignore[no-any-return]


def test_a_feed_forward_layer_is_told_by_its_linear_layers() -> None:
    assert feed_forward(Fused()) == FeedForward("down", 16, 8, ("gate_up",), True)
    assert feed_forward(Attention()) is None
    assert feed_forward(nn.Linear(8, 8)) is None
