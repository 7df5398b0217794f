"""The sizes of a model, known without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moedb.capture.blocks import MoEBlock
from moedb.schemas.arrays import array_spec
from moedb.store.arrays import ArrayKey, row_shape


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, known without its weights, and the arrays it can give."""

    blocks: tuple[MoEBlock, ...]
    n_layers: int
    d_model: int
    itemsize: int
    arrays: tuple[str, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The MoE layers."""
        return tuple(block.layer for block in self.blocks)

    def row_bytes(self, key: ArrayKey) -> int:
        """Bytes of one row of an array, before compression."""
        block = next((b for b in self.blocks if b.layer == key.layer), None)
        sizes = {
            "E": block.n_experts if block else 0,
            "k": block.top_k if block else 0,
            "h": block.d_expert if block else 0,
            "d": self.d_model,
        }
        return int(np.prod(row_shape(array_spec(key.name), sizes))) * self.itemsize


def array_bytes(
    arrays: Mapping[str, tuple[int, ...]], shape: ModelShape, n_rows: int
) -> dict[str, int]:
    """Bytes of each kind of array over its layers, before compression."""
    return {
        name: n_rows * sum(shape.row_bytes(ArrayKey(name, layer)) for layer in layers)
        for name, layers in arrays.items()
    }
