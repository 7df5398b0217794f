"""Running some of a model's layers: the first ones alone, or all but the first ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class PassThrough(nn.Module):
    """Stands in for a decoder layer, hands the residual stream on, and answers for the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # Not as a submodule: no tool should find the layer twice.
        self.__dict__["_layer"] = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the residual stream as it came."""
        return hidden_states


@contextmanager
def skipping(model: nn.Module, layers_path: str, n_layers: int) -> Iterator[None]:
    """Have ``model`` pass by the first ``n_layers`` of the layers at ``layers_path``."""
    layers = model.get_submodule(layers_path)
    before = dict(layers._modules)
    try:
        for name, layer in list(before.items())[:n_layers]:
            if layer is not None:
                layers._modules[name] = PassThrough(layer)
        yield
    finally:
        layers._modules.update(before)


@contextmanager
def only_first_layers(model: nn.Module, layers_path: str, n_layers: int) -> Iterator[None]:
    """Have ``model`` run but the first ``n_layers`` of the layers at ``layers_path``."""
    parent_path, _, name = layers_path.rpartition(".")
    parent = model.get_submodule(parent_path)
    layers: Any = parent._modules[name]
    parent._modules[name] = layers[:n_layers]
    try:
        yield
    finally:
        parent._modules[name] = layers
