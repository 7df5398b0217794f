"""What a model does with a batch, as a capture sees it: by layer and token, experts by rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from moedb.capture.structure.wiring import BlockWiring


@dataclass(frozen=True)
class LayerActivations:
    """What one MoE layer did with the tokens of a batch, padding left out.

    Experts, weights, outputs and neurons are in the order of their rank: by router score.

    Attributes
    ----------
    router_logits
        (token, expert).
    probabilities
        (token, expert): the router's full distribution.
    experts
        (token, rank).
    weights
        (token, rank).
    expert_outputs
        (token, rank, d_model), before the weights.
    shared_outputs
        (token, d_model), before the gate; None without a shared expert.
    shared_gate
        (token,): the factor on the shared expert's output; None without a shared expert.
    block_output
        (token, d_model).
    router_input
        (token, d_model).
    residual_mid
        (token, d_model); None where there is no residual stream.
    expert_neurons
        (token, rank, d_expert); None unless read.
    shared_neurons
        (token, d_shared); None unless read.
    all_expert_outputs
        (token, expert, d_model), before any weight; None where only chosen experts ran.
    """

    router_logits: torch.Tensor
    probabilities: torch.Tensor
    experts: torch.Tensor
    weights: torch.Tensor
    expert_outputs: torch.Tensor
    shared_outputs: torch.Tensor | None
    shared_gate: torch.Tensor | None
    block_output: torch.Tensor
    router_input: torch.Tensor
    residual_mid: torch.Tensor | None = None
    expert_neurons: torch.Tensor | None = None
    shared_neurons: torch.Tensor | None = None
    all_expert_outputs: torch.Tensor | None = None


@dataclass(frozen=True)
class BatchActivations:
    """What the model did with a batch, padding left out, tokens in the order of the batch.

    Attributes
    ----------
    layers
        For each MoE layer what it did.
    residual_pre
        For each layer (token, d_model); index n_layers is the stream after the last layer.
    logits
        (token, vocabulary).
    """

    layers: dict[int, LayerActivations]
    residual_pre: dict[int, torch.Tensor]
    logits: torch.Tensor


class Reader(Protocol):
    """Takes what a batch does while the model runs, and keeps of it what it wants.

    All layers' values of a large batch would be larger than a large model.
    """

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        """The residual stream entering a layer, (token, d_model); n_layers is after the last."""

    def layer(self, layer: int, activations: LayerActivations) -> None:
        """What an MoE layer did."""


def layer_activations(wiring: BlockWiring, roles: Mapping[str, torch.Tensor]) -> LayerActivations:
    """Put together what a layer did.

    Parameters
    ----------
    wiring
        How the layer's MoE block is wired.
    roles
        The values that were read of it, by what they are: (token, ...).
    """
    if wiring.block.form == "dense":
        return _dense_activations(roles)
    logits, experts = roles["router_logits"], roles["experts"].long()
    # Some routers return their choice unsorted: rank is by score, whatever order the model used.
    by_rank = logits.gather(-1, experts).argsort(dim=-1, descending=True, stable=True)
    is_sorted = bool((by_rank[:, 1:] > by_rank[:, :-1]).all())

    def ranked(values: torch.Tensor) -> torch.Tensor:
        if is_sorted:  # spares a copy of the largest values that there are
            return values
        return values.gather(1, by_rank[..., None].expand(-1, -1, values.shape[-1]))

    block_output, shared = roles["block_output"], roles.get("shared_outputs")
    if wiring.shared_is_beside:
        block_output = block_output + roles["shared_outputs"]
    gate = None
    if shared is not None:
        gate = torch.full_like(shared[:, 0], wiring.shared_scale)
    if wiring.has_shared_gate:
        gate = _scaled(roles["shared_gate"].sigmoid().flatten(), wiring.shared_scale)
    neurons = roles.get("expert_neurons")
    return LayerActivations(
        router_logits=logits,
        probabilities=wiring.rule.probabilities(logits),
        experts=experts.gather(-1, by_rank),
        weights=_weights(wiring, roles, experts).gather(-1, by_rank),
        expert_outputs=ranked(roles["expert_outputs"]),
        shared_outputs=shared,
        shared_gate=gate,
        block_output=block_output,
        router_input=roles["router_input"],
        residual_mid=roles["residual_mid"],
        expert_neurons=None if neurons is None else ranked(neurons),
        shared_neurons=roles.get("shared_neurons"),
    )


def _dense_activations(roles: Mapping[str, torch.Tensor]) -> LayerActivations:
    """What a feed-forward layer did: one expert that every token uses with the weight 1."""
    output, neurons = roles["block_output"], roles.get("dense_neurons")
    one = output.new_ones(len(output), 1)
    # No router gave these; a logit of 0 has the probability 1, and so an entropy of 0.
    logits = torch.zeros_like(one, dtype=torch.float32)
    return LayerActivations(
        router_logits=logits,
        probabilities=torch.ones_like(logits),
        experts=torch.zeros_like(one, dtype=torch.long),
        weights=one,
        expert_outputs=roles["dense_outputs"].unsqueeze(1),
        shared_outputs=None,
        shared_gate=None,
        block_output=output,
        router_input=roles["router_input"],
        residual_mid=roles["residual_mid"],
        expert_neurons=None if neurons is None else neurons.unsqueeze(1),
    )


def _weights(
    wiring: BlockWiring, roles: Mapping[str, torch.Tensor], experts: torch.Tensor
) -> torch.Tensor:
    """(token, slot): the weights in the order of the tap."""
    if "weights" not in roles:
        weights = wiring.rule.weights(roles["router_logits"], experts)
        return weights.to(roles["block_output"].dtype)
    weights = roles["weights"]
    if "weights_order" in roles:
        weights = weights.gather(-1, roles["weights_order"].argsort(dim=-1))
    return _scaled(weights, wiring.routed_scale)


def _scaled(values: torch.Tensor, scale: float) -> torch.Tensor:
    # The product of two bfloat16 numbers is none, so it is kept in a wider format.
    return values if scale == 1 else values.float() * scale
