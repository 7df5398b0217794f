"""A checkpoint quantized by GPTQ is captured as its dequantized weights run.

The oracle takes the 4-bit numbers out of the file by itself and puts them into a plain model.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = pytest.mark.model


def dequantized(weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """(out, in): eight 4-bit numbers in an int32, in groups that share a scale and a zero."""
    shifts = torch.arange(0, 32, 4)
    packed = weights[f"{name}.qweight"]  # (in / 8, out)
    numbers = (packed[:, None, :] >> shifts[None, :, None] & 15).reshape(-1, packed.shape[1])
    packed_zeros = weights[f"{name}.qzeros"]  # (group, out / 8)
    zeros = (packed_zeros[:, :, None] >> shifts & 15).reshape(len(packed_zeros), -1) + 1
    group = weights[f"{name}.g_idx"].long()
    return ((numbers - zeros[group]) * weights[f"{name}.scales"].float()[group]).T


def plain_model(folder: Path) -> Any:
    """The plain model with dequantized weights, experts stacked."""
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    stored = load_file(folder / "model.safetensors")
    quantized = {name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")}
    linear = {name: dequantized(stored, name) for name in quantized}
    for name in model.state_dict():
        prefix = name.rpartition("experts.")[0] + "experts"
        each = range(config.num_experts)
        if name.endswith("experts.gate_up_proj"):
            gate_up = [[linear[f"{prefix}.{e}.{p}_proj"] for p in ("gate", "up")] for e in each]
            value = torch.stack([torch.cat(pair) for pair in gate_up])
        elif name.endswith("experts.down_proj"):
            value = torch.stack([linear[f"{prefix}.{e}.down_proj"] for e in each])
        else:
            value = linear.get(name.removesuffix(".weight"), stored.get(name))
        model.get_parameter(name).data.copy_(value)
    return model.eval()


def test_a_quantized_checkpoint_is_captured_as_its_dequantized_weights_run(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data("qwen2moe-gptq/int4")
    # gptqmodel divides the cores among its threads, and has none left of two.
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    pytest.importorskip("gptqmodel", reason="gptqmodel is not installed (pip install moedb[gptq])")
    from moedb.capture.models.checkpoints import find_checkpoint
    from moedb.capture.models.loading.quantized import is_gptq, load_gptq
    from moedb.capture.structure.blocks import find_blocks
    from moedb.capture.tracing.rehearsal import traced

    checkpoint = find_checkpoint(str(folder))
    assert is_gptq(checkpoint)
    model: Any = load_gptq(checkpoint, "float32", "cpu")
    plain = plain_model(folder)
    prompts = ([5, 17, 200, 43, 91, 12, 7, 250, 33], [80, 3, 144])
    with traced(model, find_blocks(model)) as wrapped:
        found = wrapped.run(prompts)
        assert {each.block.form for each in wrapped.wiring.blocks} == {"list"}
    with traced(plain, find_blocks(plain)) as wrapped:
        expected = wrapped.run(prompts)
    with torch.no_grad():
        logits = [plain(input_ids=torch.tensor([prompt])).logits[0] for prompt in prompts]
    # On a CPU the kernel for 4-bit numbers multiplies in a short format.
    close = partial(torch.testing.assert_close, rtol=2e-2, atol=1e-2)
    close(found.logits, torch.cat(logits))
    for layer, here in found.layers.items():
        there = expected.layers[layer]
        assert torch.equal(here.experts, there.experts)
        for name in (
            "router_logits",
            "weights",
            "expert_outputs",
            "shared_outputs",
            "block_output",
        ):
            close(getattr(here, name), getattr(there, name))


def test_a_capture_of_a_quantized_checkpoint_is_sound(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data("qwen2moe-gptq/int4")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    pytest.importorskip("gptqmodel", reason="gptqmodel is not installed (pip install moedb[gptq])")
    from moedb.capture.jobs.language import plan_language_capture
    from moedb.capture.pipeline.plan import CaptureOptions
    from moedb.capture.pipeline.running import capture
    from moedb.store.reading.snapshot import read_run
    from moedb.store.verification.run import verify_run
    from tests.support.models.tiny_models import short_texts

    options = CaptureOptions(model=str(folder), dtype="float32", arrays=("all",))
    planned = plan_language_capture(options, short_texts)
    run_id = capture(planned, tmp_path / "store").run_id
    assert verify_run(read_run(tmp_path / "store", run_id)).n_layers_summed == 2
    run = tmp_path / "store" / "runs" / run_id
    rows = duckdb.sql(f"from read_parquet('{run}/tables/routing/*.parquet')").df()
    assert sorted(rows["rank"].unique()) == [0, 1, 2, 3]
    outputs = zarr.open(str(run / "arrays.zarr"), mode="r")["expert_outputs/0"][:35]
    assert np.isfinite(outputs).all() and outputs.shape[1:] == (4, 128)
