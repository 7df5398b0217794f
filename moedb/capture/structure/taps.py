"""Taps on the experts: their outputs, before the weights, pass through a module of their own.

Whatever the form of the experts, their outputs go through an ``nn.Identity`` that any tool,
nnsight among them, can read and edit. transformers runs the experts of most MoE families through
one interface; the function that is registered there computes what its ``grouped_mm`` implementation
computes, in the same order and so to the same bits. Other experts are wrapped, see
:mod:`moedb.capture.structure.tap_wrappers`.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.integrations import moe

from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.tap_wrappers import OUTPUTS, TappedExperts, TappedList
from moedb.errors import ModelError

IMPLEMENTATION = "moedb"
NEURONS = "moedb_neurons"


def tapped_experts_forward(
    self: Any,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Run the experts, with taps.

    Parameters
    ----------
    self
        The experts module, with its taps attached.
    hidden_states
        (token, d_model): what the experts read.
    top_k_index
        (token, rank): the chosen experts.
    top_k_weights
        (token, rank): their weights.

    Returns
    -------
    torch.Tensor
        (token, d_model): the weighted sum of the chosen experts' outputs.
    """
    n_tokens, top_k = top_k_index.shape
    grouped, order = torch.sort(top_k_index.reshape(-1))
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    counts = torch.bincount(grouped, minlength=self.num_experts)
    offsets = counts.cumsum(0, dtype=torch.int32)

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        bias = getattr(self, f"{name}_bias")[grouped] if self.has_bias else None
        product: torch.Tensor = moe._grouped_linear(
            values, getattr(self, name), offsets, bias=bias, is_transposed=self.is_transposed
        )
        return product

    def by_token(values: torch.Tensor) -> torch.Tensor:
        return values[inverse].view(n_tokens, top_k, -1)

    inputs = hidden_states[order // top_k]
    if self.has_gate:
        neurons = self._apply_gate(linear(inputs, "gate_up_proj"))
    else:
        neurons = self.act_fn(linear(inputs, "up_proj"))
    if NEURONS in self._modules:
        neurons = getattr(self, NEURONS)(by_token(neurons)).flatten(0, 1)[order]
    outputs = linear(neurons, "down_proj")
    if self.has_post_expert_norm:
        outputs = self.post_expert_norm(outputs)
    outputs = getattr(self, OUTPUTS)(by_token(outputs))
    total: torch.Tensor = (outputs * top_k_weights.unsqueeze(-1)).sum(dim=1)
    return total.to(hidden_states.dtype)


def _register() -> None:
    """Tell transformers' experts interface of :func:`tapped_experts_forward`, once."""
    if IMPLEMENTATION not in moe.ALL_EXPERTS_FUNCTIONS:
        moe.ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, tapped_experts_forward)


@contextmanager
def tapped(model: Any, blocks: Sequence[MoEBlock], neurons: Collection[int] = ()) -> Iterator[None]:
    """Attach taps to the blocks' experts, and leave the model as it was found.

    Parameters
    ----------
    model
        A transformers model.
    blocks
        Its MoE blocks.
    neurons
        The layers whose experts' hidden units are tapped too.

    Raises
    ------
    ModelError
        If the model does not let its experts be run by another function, or a layer's experts
        do not show their hidden units.
    """
    for block in blocks:
        if block.form not in ("stacked", "dense") and block.layer in neurons:
            raise ModelError(
                f"{block.experts_path}: expert_neurons can be read only of stacked experts that "
                "transformers' experts interface runs"
            )
    stacked = [block for block in blocks if block.form == "stacked"]
    wrapped = [block for block in blocks if block.form in ("own", "list")]
    with _interface(model, stacked, neurons), _wrappers(model, wrapped):
        yield


@contextmanager
def _interface(model: Any, blocks: Sequence[MoEBlock], neurons: Collection[int]) -> Iterator[None]:
    """Have the blocks' experts run by :func:`tapped_experts_forward`."""
    if not blocks:
        yield
        return
    _register()
    before = model.get_experts_implementation()
    experts: list[Any] = [model.get_submodule(block.experts_path) for block in blocks]
    try:
        for block, module in zip(blocks, experts, strict=True):
            module.add_module(OUTPUTS, nn.Identity())
            if block.layer in neurons:
                module.add_module(NEURONS, nn.Identity())
        model.set_experts_implementation(IMPLEMENTATION)
        for block, module in zip(blocks, experts, strict=True):
            if module.config._experts_implementation != IMPLEMENTATION:
                raise ModelError(
                    f"{block.experts_path}: expected experts that run through transformers' "
                    f"experts interface; {type(model).__name__} does not let them"
                )
        yield
    finally:
        model.set_experts_implementation(before)
        for module in experts:
            for name in (OUTPUTS, NEURONS):
                module._modules.pop(name, None)


@contextmanager
def _wrappers(model: nn.Module, blocks: Sequence[MoEBlock]) -> Iterator[None]:
    """Put the blocks' experts, or the blocks themselves, into wrappers that have the taps."""
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for block in blocks:
            path = block.experts_path if block.form == "own" else block.path
            parent_path, _, name = path.rpartition(".")
            parent, inner = model.get_submodule(parent_path), model.get_submodule(path)
            replaced.append((parent, name, inner))
            if block.form == "own":
                parent._modules[name] = TappedExperts(inner)
            else:
                experts_name = block.experts_path.removeprefix(f"{path}.")
                parent._modules[name] = TappedList(inner, experts_name, path, block.top_k)
        yield
    finally:
        for parent, name, inner in replaced:
            wrapper = parent._modules[name]
            parent._modules[name] = inner
            if isinstance(wrapper, TappedList):
                wrapper.release()
