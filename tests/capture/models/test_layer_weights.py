"""Weights that are read into memory that is there already."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moedb.capture.models.streaming.deferred import Deferred, deferred, write
from moedb.capture.models.streaming.stored_tensors import BLOCK_BYTES, stored_tensors
from moedb.errors import ModelError

TENSORS = {
    "gate": torch.arange(24, dtype=torch.float32).reshape(4, 6).bfloat16(),
    "up": torch.arange(24, 48, dtype=torch.float32).reshape(4, 6).bfloat16(),
    "long": torch.randn(3, BLOCK_BYTES // 4 + 5),
    "scalar": torch.tensor(2.5, dtype=torch.float16),
    "none": torch.empty(0, 7),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_tensors_are_read_as_they_were_saved(file: Path) -> None:
    with stored_tensors([file]) as stored:
        assert stored.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert torch.equal(stored[name][...], tensor)
            into = torch.full(tensor.shape, torch.nan, dtype=torch.float64)
            stored[name].copy_to(into)
            assert torch.equal(into, tensor.double())


def test_a_file_that_ends_too_early_is_named(file: Path) -> None:
    with stored_tensors([file]) as stored:
        file.write_bytes(file.read_bytes()[:-8])
        with pytest.raises(ModelError, match=r"model\.safetensors ends within the tensor"):
            for tensor in stored.values():
                _ = tensor[...]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_deferred_conversion_gives_what_the_conversion_gives(
    file: Path, dtype: torch.dtype
) -> None:
    def converted(gate: torch.Tensor, up: torch.Tensor) -> list[torch.Tensor]:
        gate, up = (each[...].to(device=gate.device, dtype=dtype) for each in (gate, up))
        stacked = torch.stack([torch.stack([gate, up]), torch.stack([up, gate])], dim=1)
        joined = torch.cat([stacked, stacked * 3], dim=2)
        return [joined, joined.transpose(0, 3).contiguous(), *joined.chunk(2, dim=-1), gate]

    expected = converted(TENSORS["gate"], TENSORS["up"])
    with stored_tensors([file]) as stored:
        planned = converted(deferred(stored["gate"]), deferred(stored["up"]))
        for value, right in zip(planned, expected, strict=True):
            assert isinstance(value, Deferred)
            found = torch.full(right.shape, torch.nan, dtype=right.dtype)
            write(value, found)
            assert torch.equal(found, right)


def test_a_deferred_tensor_refuses_what_needs_its_values(file: Path) -> None:
    with stored_tensors([file]) as stored:
        gate = deferred(stored["gate"])
        with pytest.raises((NotImplementedError, RuntimeError)):
            gate.max().item()
        with pytest.raises(NotImplementedError):
            gate.add_(1)
