"""One forward pass of a batch, with everything that a capture wants read off by nnsight."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nnsight
import torch

from moedb.capture.blocks import MoEBlock
from moedb.capture.probe import BlockWiring, Read, Wiring, probe
from moedb.capture.tap import tapped


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
        (token, rank, d_expert); None unless tapped.
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
        (token, vocabulary), or (image, class).
    """

    layers: dict[int, LayerActivations]
    residual_pre: dict[int, torch.Tensor]
    logits: torch.Tensor


class TracedModel:
    """A model that is ready to be captured. Made by :func:`traced`."""

    def __init__(self, model: Any, wiring: Wiring) -> None:
        self.model = model
        self.wiring = wiring
        self._nnsight = nnsight.NNsight(model)
        self._device = next(model.parameters()).device
        self._envoys = [self._nnsight.get(read.path) for read in wiring.reads]

    def run(self, token_ids: Sequence[Sequence[int]]) -> BatchActivations:
        """Run a batch of examples, padded on the right, and read off its activations.

        Parameters
        ----------
        token_ids
            The examples' token ids, of any lengths.
        """
        lengths = torch.tensor([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        padded = torch.zeros(len(token_ids), longest, dtype=torch.long)
        padded[mask] = torch.tensor([token for ids in token_ids for token in ids])
        values = self._trace(padded.to(self._device), mask.long().to(self._device))
        kept = mask.flatten().nonzero().flatten().to(self._device)
        return self._collect(values, kept)

    def _trace(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[Any]:
        reads, envoys = self.wiring.reads, self._envoys
        with (
            torch.no_grad(),
            self._nnsight.trace(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ),
        ):
            values = nnsight.save([])
            for read, envoy in zip(reads, envoys, strict=True):
                values.append(envoy.input if read.side == "input" else envoy.output)
        return list(values)

    def _collect(self, values: Sequence[Any], kept: torch.Tensor) -> BatchActivations:
        by_layer: dict[int, dict[str, Any]] = {}
        for read, value in zip(self.wiring.reads, values, strict=True):
            by_layer.setdefault(read.layer, {})[read.role] = _tokens(read, value, kept)
        layers = {}
        for wiring in self.wiring.blocks:
            layers[wiring.block.layer] = _layer(wiring, by_layer[wiring.block.layer])
        residual = {
            layer: roles["residual_pre"]
            for layer, roles in by_layer.items()
            if "residual_pre" in roles
        }
        return BatchActivations(layers, residual, by_layer[self.wiring.n_layers]["logits"])


def _tokens(read: Read, value: Any, kept: torch.Tensor) -> Any:
    """Flatten (batch, position, ...) to (token, ...) and leave padding out."""
    if read.role == "router":
        logits, weights, experts = value
        return tuple(part.flatten(0, -2)[kept] for part in (logits, weights, experts))
    if read.role in ("expert_outputs", "expert_neurons"):
        return value[kept]  # (token, rank, width): tapped inside the block, where tokens are flat
    return value.flatten(0, -2)[kept]


def _layer(wiring: BlockWiring, roles: Mapping[str, Any]) -> LayerActivations:
    logits, weights, experts = roles["router"]
    # Some routers return their choice unsorted: rank is by score, whatever order the model used.
    by_rank = logits.gather(-1, experts).argsort(dim=-1, descending=True, stable=True)

    def ranked(values: torch.Tensor) -> torch.Tensor:
        return values.gather(1, by_rank[..., None].expand(-1, -1, values.shape[-1]))

    shared = roles.get("shared_outputs")
    if wiring.has_shared_gate:
        gate = roles["shared_gate"].sigmoid().flatten()
    else:
        gate = None if shared is None else torch.ones_like(shared[:, 0])
    neurons = roles.get("expert_neurons")
    return LayerActivations(
        router_logits=logits,
        probabilities=wiring.rule.probabilities(logits),
        experts=experts.gather(-1, by_rank),
        weights=weights.gather(-1, by_rank),
        expert_outputs=ranked(roles["expert_outputs"]),
        shared_outputs=shared,
        shared_gate=gate,
        block_output=roles["block_output"],
        router_input=roles["router_input"],
        residual_mid=roles["residual_mid"],
        expert_neurons=None if neurons is None else ranked(neurons),
    )


@contextmanager
def traced(
    model: Any, blocks: Sequence[MoEBlock], neurons: Collection[int] = ()
) -> Iterator[TracedModel]:
    """Tap ``model``, probe it, and leave it as it was found.

    Raises
    ------
    ModelError
        If a block is wired in a way that a capture could not read.
    """
    with tapped(model, blocks, neurons):
        yield TracedModel(model, probe(model, blocks))
