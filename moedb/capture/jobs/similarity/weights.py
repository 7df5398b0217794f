"""Which weights are which expert's: its gate, its up and its down projection.

Whatever the form of the experts, a projection gives the weights of all experts some rows at a time,
so that no more of a large layer than that is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from moedb.capture.jobs.similarity.gating import N_PROBED, gate_and_up, layouts
from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.feed_forward import FeedForward, feed_forward

OWN = "the experts have a forward of their own, which does not show whose weights are whose"
AWAY = "the weights are not in memory"
CODES = "the weights are kept in a format that nothing is computed in"
UNTOLD = "the gate cannot be told from the up projection"


class Projection(Protocol):
    """A projection of every expert of a layer."""

    @property
    def is_by_input(self) -> bool:
        """Whether a row is of an input, and not of an output."""

    @property
    def n_rows(self) -> int:
        """Rows of an expert's weight."""

    def rows(self, first: int, end: int) -> torch.Tensor:
        """(expert, row, value): some rows of each expert's weight."""


@dataclass(frozen=True)
class Stacked:
    """A projection whose weights stand in one tensor, (expert, row, value)."""

    weight: torch.Tensor
    is_by_input: bool = False

    @property
    def n_rows(self) -> int:
        """Rows of an expert's weight."""
        return self.weight.shape[1]

    def rows(self, first: int, end: int) -> torch.Tensor:
        """(expert, row, value): some rows of each expert's weight."""
        return self.weight[:, first:end]


@dataclass(frozen=True)
class Listed:
    """A projection with a weight for each expert."""

    weights: Sequence[torch.Tensor]
    is_by_input: bool = False

    @property
    def n_rows(self) -> int:
        """Rows of an expert's weight."""
        return len(self.weights[0])

    def rows(self, first: int, end: int) -> torch.Tensor:
        """(expert, row, value): some rows of each expert's weight."""
        return torch.stack([weight[first:end] for weight in self.weights])


@dataclass(frozen=True)
class Multiplied:
    """A projection of linear layers that show no weight, such as quantized ones.

    A row is what a layer makes of an input that is 1 at one place, less what it makes of zeros.

    Attributes
    ----------
    layers
        Each expert's linear layer.
    n_rows
        What they read.
    outputs
        Which of their outputs are the projection's.
    like
        A tensor in the format, and on the device, that they compute in.
    """

    layers: Sequence[nn.Module]
    n_rows: int
    outputs: slice
    like: torch.Tensor
    is_by_input: bool = True

    def rows(self, first: int, end: int) -> torch.Tensor:
        """(expert, row, value): some rows of each expert's weight."""
        unit = self.like.new_zeros(end - first + 1, self.n_rows)
        unit[torch.arange(end - first), torch.arange(first, end)] = 1
        made = [layer(unit)[:, self.outputs] for layer in self.layers]
        return torch.stack([each[:-1] - each[-1] for each in made])


@dataclass(frozen=True)
class ExpertWeights:
    """The weights of a layer's experts.

    Attributes
    ----------
    gate, up, down
        Their projections; the gate is None where they have none, all where they are not told.
    others
        Weights that are not told apart, such as those of experts that are no feed-forward layers.
    reason
        Why something is not told; None where all is.
    """

    gate: Projection | None = None
    up: Projection | None = None
    down: Projection | None = None
    others: tuple[Projection, ...] = ()
    reason: str | None = None


def expert_weights(model: Any, block: MoEBlock) -> ExpertWeights:
    """Find the weights of a block's experts.

    Parameters
    ----------
    model
        The model, with the block's weights in memory.
    block
        The block.
    """
    experts = model.get_submodule(block.experts_path)
    if any(parameter.is_meta for parameter in experts.parameters()):
        return ExpertWeights(reason=AWAY)
    if block.form == "stacked":
        return _stacked(experts)
    if block.form == "list":
        return listed_weights(list(experts))
    return ExpertWeights(reason=OWN)


def _stacked(experts: Any) -> ExpertWeights:
    """Of experts that transformers' experts interface runs."""

    def by_output(name: str) -> torch.Tensor:
        weight: torch.Tensor = getattr(experts, name).detach()
        return weight.transpose(1, 2) if experts.is_transposed else weight

    down = Stacked(by_output("down_proj"))
    if not down.weight.is_floating_point() or down.weight.element_size() < 2:
        return ExpertWeights(reason=CODES)
    if not experts.has_gate:
        return ExpertWeights(up=Stacked(by_output("up_proj")), down=down)
    both = by_output("gate_up_proj")
    values = _probe(both.new_empty(N_PROBED, both.shape[1]))

    def scaled(part: slice, scale: float) -> torch.Tensor:
        changed = values.clone()
        changed[:, part] *= scale
        hidden: torch.Tensor = experts._apply_gate(changed)
        return hidden

    found = gate_and_up(scaled, layouts(both.shape[1] // 2))
    if found is None:
        return ExpertWeights(down=down, others=(Stacked(both),), reason=UNTOLD)
    gate, up = (Stacked(both[:, part]) for part in found)
    return ExpertWeights(gate, up, down)


def listed_weights(experts: Sequence[nn.Module]) -> ExpertWeights:
    """Find the weights of experts that are modules of their own, built alike.

    Parameters
    ----------
    experts
        The experts, in order.
    """
    shape = feed_forward(experts[0])
    if shape is None:
        names = [name for name, each in experts[0].named_parameters() if each.dim() > 1]
        weights = [[each.get_parameter(name).detach() for each in experts] for name in names]
        return ExpertWeights(others=tuple(Listed(each) for each in weights))
    down = _linear(experts, shape.down, slice(None))
    if len(shape.ups) == 1 and not shape.is_joined:
        return ExpertWeights(up=_linear(experts, shape.ups[0], slice(None)), down=down)
    found = _gate_and_up(experts[0], shape)
    if found is None:
        others = tuple(_linear(experts, path, slice(None)) for path in shape.ups)
        return ExpertWeights(down=down, others=others, reason=UNTOLD)
    gate, up = (_linear(experts, path, part) for path, part in found)
    return ExpertWeights(gate, up, down)


def _gate_and_up(
    expert: nn.Module, shape: FeedForward
) -> tuple[tuple[str, slice], tuple[str, slice]] | None:
    """The linear layer, and which of its outputs, that is an expert's gate, and that is its up."""
    inputs = _probe(_like(expert).new_empty(N_PROBED, shape.d_model))
    # two layers are as one that writes first what the one does, then what the other does
    width = shape.d_hidden

    def changed(path_part: slice, scale: float, offset: int, *call: Any) -> torch.Tensor:
        outputs: torch.Tensor = call[-1].clone()
        places = torch.arange(2 * width)[path_part] - offset
        places = places[(places >= 0) & (places < outputs.shape[-1])]
        outputs[..., places.to(outputs.device)] *= scale
        return outputs

    def scaled(part: slice, scale: float) -> torch.Tensor:
        handles = [
            expert.get_submodule(path).register_forward_hook(
                partial(changed, part, scale, number * width)
            )
            for number, path in enumerate(shape.ups)
        ]
        try:
            # the module's hooks would count this among the model's own calls
            outputs: torch.Tensor = expert.forward(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    found = gate_and_up(scaled, layouts(width) if shape.is_joined else layouts(width)[:1])
    if found is None:
        return None
    gate, up = found
    if shape.is_joined:
        return (shape.ups[0], gate), (shape.ups[0], up)
    first, second = shape.ups
    paths = (first, second) if gate.start == 0 else (second, first)
    return (paths[0], slice(None)), (paths[1], slice(None))


def _linear(experts: Sequence[nn.Module], path: str, part: slice) -> Projection:
    """A linear layer of every expert."""
    layers = [expert.get_submodule(path) for expert in experts]
    if all(type(layer) is nn.Linear for layer in layers):
        weights: list[Any] = [layer.weight for layer in layers]
        return Listed([weight.detach()[part] for weight in weights])
    reads: Any = getattr(layers[0], "in_features", None) or getattr(layers[0], "nx", None)
    return Multiplied(layers, int(reads), part, _like(experts[0]))


def _like(module: nn.Module) -> torch.Tensor:
    """A tensor in the format that a module computes in, on its device; codes are no format."""
    tensors = [*module.parameters(), *module.buffers()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    device = tensors[0].device if tensors else torch.device("cpu")
    dtype = floats[0].dtype if floats else torch.float32
    return torch.empty(0, dtype=dtype, device=device)


def _probe(empty: torch.Tensor) -> torch.Tensor:
    """The same normal values always."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(empty.shape, generator=generator).to(empty)


def router_rows(model: Any, router_path: str, n_experts: int, d_model: int) -> Stacked | None:
    """The rows of a router's weight, one for each expert; None where there is no such weight.

    Parameters
    ----------
    model
        The model.
    router_path
        The module that gives the router's logits.
    n_experts, d_model
        The shape of the weight.
    """
    found = [
        parameter.detach()
        for parameter in model.get_submodule(router_path).parameters()
        if parameter.shape == (n_experts, d_model) and not parameter.is_meta
    ]
    return Stacked(found[0].unsqueeze(1)) if len(found) == 1 else None
