"""A checkpoint quantized by GPTQ is captured as its dequantized weights run.

Small checkpoints are packed by numpy, beside the weights that they stand for; the oracle of the one
that gptqmodel wrote takes the 4-bit numbers out of the file by itself.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.loading.pretrained import load_model
from moedb.capture.models.loading.quantized import stays_quantized
from moedb.capture.models.opening import opened_model
from moedb.capture.models.placement import Placement
from moedb.capture.models.streaming.gptq_weights import unpacked
from moedb.capture.models.streaming.streamed_model import streamed_model
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.errors import ModelError
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.support.models.gptq_checkpoint import Format, Pair, save_pair
from tests.support.models.tiny_models import short_texts
from tests.support.shared import made_once

pytestmark = pytest.mark.model

IDS = torch.arange(40).reshape(2, 20)
ON_A_CPU = Placement("float32", "cpu")

# Weights are equal; where they lie in memory may change the order in which a product is added up.
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = made_once(tmp_path_factory, "gptq", lambda folder: save_pair(folder, Format()))
    return Pair(folder / "plain", folder / "quantized")


@pytest.mark.parametrize(
    "made",
    [
        Format(),
        Format(act_order=True),
        Format(layout="gptq_v2"),
        Format(bits=2),
        Format(bits=8, symmetric=True),
    ],
    ids=str,
)
def test_a_quantized_model_is_its_dequantized_weights(made: Format, tmp_path: Path) -> None:
    pair = save_pair(tmp_path, made)
    plain = load_model(local_checkpoint(pair.plain), "float32", "cpu")
    with torch.no_grad(), opened_model(local_checkpoint(pair.quantized), ON_A_CPU) as model:
        close(model(IDS).logits, plain(IDS).logits)
        for name, value in model.state_dict().items():
            assert torch.equal(value, plain.state_dict()[name]), name


def test_weights_are_rounded_once(pair: Pair) -> None:
    plain = load_model(local_checkpoint(pair.plain), "bfloat16", "cpu")
    checkpoint = local_checkpoint(pair.quantized)
    with torch.no_grad(), opened_model(checkpoint, Placement("bfloat16", "cpu")) as model:
        model(IDS)
        for name, value in model.state_dict().items():
            assert torch.equal(value, plain.state_dict()[name]), name


def test_its_layers_are_read_one_by_one(pair: Pair) -> None:
    plain = load_model(local_checkpoint(pair.plain), "float32", "cpu")
    whole = sum(parameter.nbytes for parameter in plain.parameters())
    placement = Placement("float32", "cpu", whole - 1)
    with torch.no_grad(), opened_model(local_checkpoint(pair.quantized), placement) as model:
        for _ in range(2):
            close(model(IDS).logits, plain(IDS).logits)
        assert any(parameter.is_meta for parameter in model.parameters())


def test_its_capture_is_that_of_the_dequantized_model(pair: Pair, tmp_path: Path) -> None:
    captured = []
    for folder in (pair.plain, pair.quantized):
        options = CaptureOptions(
            model=str(folder), dtype="float32", arrays=("all", "expert_neurons")
        )
        planned = plan_language_capture(options, short_texts)
        run_id = capture(planned, tmp_path / "store").run_id
        run = read_run(tmp_path / "store", run_id)
        assert verify_run(run).n_layers_summed == 3
        captured.append(run)
    plain, quantized = captured
    rows = [duckdb.read_parquet([str(path) for path in run.files("routing")]) for run in captured]
    chosen = [each.select("token_idx, layer, rank, expert").order("all") for each in rows]
    assert len(chosen[0]) == 35 * 3 * 4 and chosen[0].fetchall() == chosen[1].fetchall()
    groups = [zarr.open_group(run.layout.arrays, mode="r") for run in captured]
    assert plain.manifest.arrays == quantized.manifest.arrays
    for name, layers in plain.manifest.arrays.items():
        for layer in layers:
            there, here = (torch.tensor(each[f"{name}/{layer}"][:35]) for each in groups)
            close(here, there)


def test_what_stays_quantized(pair: Pair) -> None:
    quantized, plain = local_checkpoint(pair.quantized), local_checkpoint(pair.plain)
    assert stays_quantized(quantized, Placement("float16", "cuda"))
    assert not stays_quantized(plain, Placement("float16", "cuda"))
    assert not stays_quantized(quantized, Placement("float16", "cuda", max_bytes=10**9))
    assert not stays_quantized(quantized, ON_A_CPU)


def test_codes_come_out_of_words_lowest_first() -> None:
    words = torch.tensor([[0x76543210, -0x01234568]], dtype=torch.int32)  # the second: 0xFEDCBA98
    assert unpacked(words, 4).tolist() == [list(range(16))]
    assert unpacked(words[:, :1], 8).tolist() == [[0x10, 0x32, 0x54, 0x76]]
    assert unpacked(words[:, :1], 2).tolist() == [[0, 0, 1, 0, 2, 0, 3, 0, 0, 1, 1, 1, 2, 1, 3, 1]]


LAYER = "model.layers.1.mlp.experts.3.up_proj"


def without(part: str) -> Any:
    return lambda tensors: tensors.pop(f"{LAYER}.{part}")


def with_part(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{LAYER}.{part}"] = change(tensors[f"{LAYER}.{part}"]).contiguous()

    return edit


def with_weight(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.weight"] = torch.zeros(64, 128)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("scales"), rf"lacks {LAYER}\.scales"),
        (without("g_idx"), rf"lacks {LAYER}\.g_idx"),
        (without("qweight"), r"does not fit its configuration: .*experts\.gate_up_proj"),
        (with_weight, rf"both {LAYER}\.weight and {LAYER}\.qweight"),
        (with_part("qweight", lambda v: v[:12]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("qweight", lambda v: v[0]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("qzeros", lambda v: v[:, :4]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("scales", lambda v: v[:0]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("scales", lambda v: v[0]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("g_idx", lambda v: v[:0]), "fit no layer of 2, 4 or 8 bits"),
        (with_part("qweight", lambda v: v.float()), "expected int32"),
        (with_part("scales", lambda v: v.to(torch.int16)), "scales in a float format"),
        (with_part("g_idx", lambda v: v + 1), "groups of 0 to 3, found 1 to 4"),
        (with_part("g_idx", lambda v: v - 1), "groups of 0 to 3, found -1 to 2"),
        (with_part("bias", lambda v: v + 1), rf"{LAYER}\.bias is not zero"),
    ],
)
def test_what_is_damaged_is_refused(edit: Any, message: str, pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.quantized, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with (
        pytest.raises(ModelError, match=message),
        torch.no_grad(),
        opened_model(local_checkpoint(folder), ON_A_CPU) as model,
    ):
        model(IDS)


@pytest.mark.parametrize(
    "settings",
    [{"checkpoint_format": "marlin"}, {"format": ["gptq"]}, {"is_marlin_format": True}],
)
def test_another_format_is_refused(settings: dict[str, Any], pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.quantized, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    with (
        pytest.raises(ModelError, match="read on a CPU or in part are gptq, gptq_v2"),
        opened_model(local_checkpoint(folder), ON_A_CPU),
    ):
        pass


def test_what_gptqmodel_wrote_is_read(shared_data: Callable[[str], Path]) -> None:
    """Weights and scales that were quantized of a model's, not made up."""
    folder = shared_data("qwen2moe-gptq/int4")
    stored = load_file(folder / "model.safetensors")
    with (
        torch.no_grad(),
        streamed_model(local_checkpoint(folder), "float32", "cpu", 10**9) as model,
    ):
        model(IDS)
        for name, value in dequantized(stored).items():
            if ".experts." not in name:
                assert torch.equal(model.get_submodule(name).weight, value)
                continue
            path, expert, part = name.rsplit(".", 2)
            experts: Any = model.get_submodule(path)
            gate, up = experts.gate_up_proj[int(expert)].chunk(2)
            down = experts.down_proj[int(expert)]
            found = {"gate_proj": gate, "up_proj": up, "down_proj": down}[part]
            assert torch.equal(found, value)


def dequantized(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """(out, in) of each layer: eight 4-bit numbers in an int32, in groups of inputs."""
    shifts = torch.arange(0, 32, 4)
    found = {}
    for name in [each.removesuffix(".qweight") for each in stored if each.endswith(".qweight")]:
        words = stored[f"{name}.qweight"]  # (in / 8, out)
        numbers = (words[:, None, :] >> shifts[None, :, None] & 15).reshape(-1, words.shape[1])
        words = stored[f"{name}.qzeros"]  # (group, out / 8)
        zeros = (words[:, :, None] >> shifts & 15).reshape(len(words), -1) + 1
        group = stored[f"{name}.g_idx"].long()
        found[name] = ((numbers - zeros[group]) * stored[f"{name}.scales"].float()[group]).T
    return found
