"""gptqmodel, which keeps the weights that GPTQ quantized as they are, says the same of them.

It wants another numpy than moedb's other tests run with: `make test-gptq` installs both for these.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.qwen2_moe import modeling_qwen2_moe

from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.loading.quantized import load_gptq
from moedb.capture.models.opening import opened_model
from moedb.capture.models.placement import Placement
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.rehearsal import traced
from tests.support.models.gptq_checkpoint import Format, save_pair

if find_spec("gptqmodel") is None:
    pytest.skip("gptqmodel is not installed: make test-gptq", allow_module_level=True)

pytestmark = pytest.mark.model

SYMMETRIC = Format(symmetric=True)

ON_A_CPU = Placement("float16", "cpu")

PROMPTS = ([5, 17, 200, 43, 91, 12, 7, 250, 33], [80, 3, 144])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """On a CPU its kernels for 4-bit numbers multiply in a short format."""
    atol = 1e-2 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=atol)


@pytest.fixture(scope="module", autouse=True)
def many_cores() -> Iterator[None]:
    """gptqmodel divides the cores among its threads, and has none left of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 8)
        yield


@contextmanager
def its_own_transformers() -> Iterator[None]:
    """Undo afterwards that gptqmodel has transformers build blocks with lists of experts."""
    with pytest.MonkeyPatch.context() as patch:
        name = "Qwen2MoeSparseMoeBlock"
        patch.setattr(modeling_qwen2_moe, name, getattr(modeling_qwen2_moe, name))
        yield


@pytest.mark.parametrize("made", [True, False], ids=["made", "shared"])
def test_its_model_is_traced_as_dequantized_weights_are(
    made: bool, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    if made:
        folder = save_pair(tmp_path, SYMMETRIC, n_layers=1).quantized
    else:
        folder = shared_data("qwen2moe-gptq/int4")
    checkpoint = local_checkpoint(folder)
    with its_own_transformers():
        model: Any = load_gptq(checkpoint, "float32", "cpu")
    with traced(model, find_blocks(model)) as wrapped:
        found = wrapped.run(PROMPTS)
        assert {each.block.form for each in wrapped.wiring.blocks} == {"list"}
    with (
        opened_model(checkpoint, Placement("float32", "cpu")) as plain,
        traced(plain, find_blocks(plain)) as wrapped,
    ):
        expected = wrapped.run(PROMPTS)
        assert {each.block.form for each in wrapped.wiring.blocks} == {"stacked"}
    close(found.logits, expected.logits)
    for layer, here in found.layers.items():
        there = expected.layers[layer]
        close(here.router_logits, there.router_logits)
        # Where scores are nearer to each other than those of the two kernels, either is right.
        apart = (here.router_logits - there.router_logits).abs().max()
        best = there.router_logits.sort(descending=True).values[:, :5]
        clear = best.diff().abs().min(dim=1).values > 2 * apart
        assert clear.sum() >= len(clear) / 2
        assert torch.equal(here.experts[clear], there.experts[clear])
        for name in ("weights", "expert_outputs", "shared_outputs", "block_output"):
            close(getattr(here, name)[clear], getattr(there, name)[clear])


@pytest.mark.parametrize(
    "made",
    [Format(), Format(act_order=True), Format(layout="gptq_v2"), Format(bits=8)],
    ids=str,
)
def test_it_reads_the_same_weights(made: Format, tmp_path: Path) -> None:
    check_weights(save_pair(tmp_path, made, n_layers=1).quantized)


def test_what_it_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    monkeypatch.chdir(tmp_path)  # where it writes logs
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(250, (32, 64), generator=generator).tolist()
    plain = save_pair(tmp_path, SYMMETRIC, n_layers=1).plain
    config = QuantizeConfig(bits=4, group_size=32, desc_act=True, act_group_aware=False)
    with its_own_transformers():
        model = GPTQModel.load(str(plain), config, device="cpu")
        model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts])
        model.save(str(tmp_path / "saved"))
    check_weights(tmp_path / "saved")


def check_weights(folder: Path) -> None:
    """Hold the weights of a model of one layer against what gptqmodel says that they are."""
    from gptqmodel import BACKEND, GPTQModel

    with its_own_transformers():
        theirs = GPTQModel.load(
            str(folder), device="cpu", dtype=torch.float16, backend=BACKEND.TORCH
        ).model
    layers = {path: m for path, m in theirs.named_modules() if hasattr(m, "qweight")}
    assert len(layers) == 4 + 3 * 9
    with torch.no_grad(), opened_model(local_checkpoint(folder), ON_A_CPU) as model:
        model(torch.arange(8)[None])
        for path, layer in layers.items():
            assert torch.equal(linear_weight(model, path), layer.dequantize_weight().T), path


def linear_weight(model: Any, path: str) -> torch.Tensor:
    """The weight of a linear layer, which may be one expert's of a stack."""
    if ".experts." not in path:
        return model.get_submodule(path).weight
    parent, expert, part = path.rsplit(".", 2)
    experts = model.get_submodule(parent)
    gate, up = experts.gate_up_proj[int(expert)].chunk(2)
    return {"gate_proj": gate, "up_proj": up, "down_proj": experts.down_proj[int(expert)]}[part]
