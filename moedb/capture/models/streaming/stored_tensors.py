"""Tensors in safetensors files, read into memory that is there already."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from moedb.errors import ModelError

FORMATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The number formats of safetensors."""

BLOCK_BYTES = 1 << 20
"""What is read before it is converted: little, so that it is still in the processor's cache."""


class ReadableTensor(Protocol):
    """A tensor that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> torch.dtype:
        """A number format that holds it exactly."""

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Read it; transformers asks for ``tensor[...]``."""

    def copy_to(self, target: torch.Tensor) -> None:
        """Read it into ``target``, of the same shape and any format and device."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes
    ----------
    handle, path
        The open file, and its name for messages.
    offset
        Where in it the tensor begins.
    """

    name: str
    handle: int
    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Read it; transformers asks for ``tensor[...]``."""
        read = torch.empty(self.shape, dtype=self.dtype)
        self.copy_to(read)
        return read[index]

    def copy_to(self, target: torch.Tensor) -> None:
        """Read it into ``target``, of the same shape and any format and device.

        Raises
        ------
        ModelError
            If the file ends before the tensor does.
        """
        rows = self.shape if self.shape else (1,)
        if not prod(rows):
            return
        into = target if self.shape else target[None]
        row_bytes = prod(rows[1:]) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // row_bytes)
        scratch = torch.empty(min(step, rows[0]) * row_bytes, dtype=torch.uint8)
        for first in range(0, rows[0], step):
            n_rows = min(step, rows[0] - first)
            block = scratch[: n_rows * row_bytes]
            self._read(block, self.offset + first * row_bytes)
            into[first : first + n_rows].copy_(block.view(self.dtype).view(n_rows, *rows[1:]))

    def _read(self, block: torch.Tensor, offset: int) -> None:
        view = memoryview(block.numpy().data)
        while view:
            n_bytes = os.preadv(self.handle, [view], offset)
            if not n_bytes:
                raise ModelError(f"{self.path} ends within the tensor {self.name}")
            view, offset = view[n_bytes:], offset + n_bytes


@contextmanager
def stored_tensors(files: Sequence[Path]) -> Iterator[dict[str, StoredTensor]]:
    """Open safetensors files; give all tensors in them by name, none of them read.

    Raises
    ------
    ModelError
        If a file is no safetensors file or has a number format that is not known.
    """
    handles = []
    try:
        found = {}
        for path in files:
            handle = os.open(path, os.O_RDONLY)
            handles.append(handle)
            found.update(_header(handle, path))
        yield found
    finally:
        for handle in handles:
            os.close(handle)


def _header(handle: int, path: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(path, framework="pt", backend="pread"):
            pass  # the library checks the whole header
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    n_bytes = int.from_bytes(os.pread(handle, 8, 0), "little")
    header = json.loads(os.pread(handle, n_bytes, 8))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in FORMATS:
            raise ModelError(f"{path}: the tensor {name} has the format {entry['dtype']}")
        offset = 8 + n_bytes + entry["data_offsets"][0]
        dtype = FORMATS[entry["dtype"]]
        found[name] = StoredTensor(name, handle, path, offset, tuple(entry["shape"]), dtype)
    return found
