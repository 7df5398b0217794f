"""Learning a model's wiring from one small forward pass.

What a capture reads is named here: which module's input or output holds each value. The order in
which the modules run matters, since nnsight must be asked for values in that order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from moedb.capture.blocks import MoEBlock
from moedb.capture.tap import NEURONS, OUTPUTS
from moedb.errors import ModelError

Side = Literal["input", "output"]
Scoring = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Read:
    """One value to read: the role it plays, its layer, and the module that has it."""

    role: str
    layer: int
    path: str
    side: Side


@dataclass(frozen=True)
class RouterRule:
    """How a router's logits become weights."""

    scoring: Scoring
    norm_topk_prob: bool

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The router's full distribution, (token, expert), summing to 1 over the experts."""
        if self.scoring == "softmax":
            return logits.float().softmax(dim=-1)
        scores = logits.float().sigmoid()
        return scores / scores.sum(dim=-1, keepdim=True)

    def weights(self, logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """The weights, (token, rank), that the rule gives the chosen ``experts``."""
        scores = logits.float()
        scores = scores.softmax(dim=-1) if self.scoring == "softmax" else scores.sigmoid()
        chosen = scores.gather(-1, experts)
        return chosen / chosen.sum(dim=-1, keepdim=True) if self.norm_topk_prob else chosen


@dataclass(frozen=True)
class BlockWiring:
    """What the probe learned of one block."""

    block: MoEBlock
    router_path: str
    rule: RouterRule
    has_shared_expert: bool
    has_shared_gate: bool


@dataclass(frozen=True)
class Wiring:
    """What the probe learned of a model.

    Attributes
    ----------
    blocks
        The MoE blocks.
    reads
        Everything that can be read, in the order in which the model runs.
    n_layers
        Number of decoder blocks; ``residual_pre`` of this index is the stream after the last.
    d_model
        Width of the residual stream.
    """

    blocks: tuple[BlockWiring, ...]
    reads: tuple[Read, ...]
    n_layers: int
    d_model: int


@dataclass(frozen=True)
class _Call:
    path: str
    side: Side
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[_Call]]:
    """Record the modules' inputs and outputs in the order in which they come up."""
    calls: list[_Call] = []
    handles = []
    for path, module in model.named_modules():

        def before(_: Any, args: Any, kwargs: Any, path: str = path) -> None:
            calls.append(_Call(path, "input", (*args, *kwargs.values()), None))

        def after(_: Any, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            calls.append(_Call(path, "output", (*args, *kwargs.values()), output))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def probe(model: Any, blocks: Sequence[MoEBlock]) -> Wiring:
    """Run eight tokens through the tapped ``model`` and learn where its values are.

    Parameters
    ----------
    model
        A transformers causal language model whose experts are tapped.
    blocks
        Its MoE blocks.

    Raises
    ------
    ModelError
        If a block is wired in a way that a capture could not read; the message names the module.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(8, device=device).unsqueeze(0) % vocabulary
    with torch.no_grad(), _recorded(model) as calls:
        model(input_ids=ids, use_cache=False)
    position = {(call.path, call.side): index for index, call in reversed([*enumerate(calls)])}
    d_model = model.get_input_embeddings().embedding_dim
    layers_path = blocks[0].decoder_path.rpartition(".")[0]
    n_layers = len(model.get_submodule(layers_path))
    found: list[Read] = []
    wirings = []
    for block in blocks:
        wiring, reads = _wire_block(block, calls, d_model)
        wirings.append(wiring)
        found.extend(reads)
    for layer in range(n_layers):
        found.append(Read("residual_pre", layer, f"{layers_path}.{layer}", "input"))
    found.append(Read("residual_pre", n_layers, _final_norm(calls, layers_path), "input"))
    head = next(p for p, m in model.named_modules() if m is model.get_output_embeddings())
    found.append(Read("logits", n_layers, head, "output"))
    order = sorted(found, key=lambda read: position[read.path, read.side])
    return Wiring(tuple(wirings), tuple(order), n_layers, d_model)


def _wire_block(
    block: MoEBlock, calls: Sequence[_Call], d_model: int
) -> tuple[BlockWiring, list[Read]]:
    def output_of(path: str) -> _Call:
        for call in calls:
            if call.path == path and call.side == "output":
                return call
        raise ModelError(f"{path}: expected to run in a forward pass, did not")

    _, indices, weights = output_of(block.experts_path).inputs[:3]
    router_path, logits = _find_router(block, calls, indices)
    rule = _find_rule(router_path, logits, indices, weights)
    shared_path, gate_path = _find_shared(block, calls, router_path, d_model)
    layer = block.layer
    reads = [
        Read("residual_mid", layer, _norm_before(block, calls), "input"),
        Read("router_input", layer, block.path, "input"),
        Read("router", layer, router_path, "output"),
        Read("expert_outputs", layer, f"{block.experts_path}.{OUTPUTS}", "output"),
        Read("block_output", layer, block.path, "output"),
    ]
    if shared_path:
        reads.append(Read("shared_outputs", layer, shared_path, "output"))
    if gate_path:
        reads.append(Read("shared_gate", layer, gate_path, "output"))
    neurons = f"{block.experts_path}.{NEURONS}"
    if any(call.path == neurons for call in calls):
        reads.append(Read("expert_neurons", layer, neurons, "output"))
    wiring = BlockWiring(block, router_path, rule, bool(shared_path), bool(gate_path))
    return wiring, reads


def _find_router(
    block: MoEBlock, calls: Sequence[_Call], indices: torch.Tensor
) -> tuple[str, torch.Tensor]:
    """The module in the block that yields (logits, weights, indices)."""
    for call in calls:
        output = call.output
        if (
            call.side == "output"
            and call.path.startswith(f"{block.path}.")
            and isinstance(output, tuple)
            and len(output) == 3
            and all(isinstance(value, torch.Tensor) for value in output)
            and output[0].shape[-1] == block.n_experts
            and output[2].shape == indices.shape
            and torch.equal(output[2], indices)
        ):
            return call.path, output[0].reshape(-1, block.n_experts)
    raise ModelError(
        f"{block.path}: expected a router module that returns (logits, weights, indices) "
        f"for {block.n_experts} experts, found none"
    )


def _find_rule(
    path: str, logits: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> RouterRule:
    """The rule that turns these logits into these weights."""
    scorings: tuple[Scoring, ...] = ("softmax", "sigmoid")
    tolerance = 4 * torch.finfo(weights.dtype).eps
    for scoring in scorings:
        for norm_topk_prob in (False, True):
            rule = RouterRule(scoring, norm_topk_prob)
            if torch.allclose(rule.weights(logits, indices), weights.float(), rtol=tolerance):
                return rule
    raise ModelError(
        f"{path}: expected weights that are the softmax or the sigmoid of its logits, normalized "
        "over the chosen experts or not; they are neither"
    )


def _find_shared(
    block: MoEBlock, calls: Sequence[_Call], router_path: str, d_model: int
) -> tuple[str | None, str | None]:
    """The shared expert, and the gate on its output, among the block's children."""
    shared = gate = None
    for call in calls:
        parent, _, _ = call.path.rpartition(".")
        if parent != block.path or call.side != "output":
            continue
        if call.path in (router_path, block.experts_path):
            continue
        if not isinstance(call.output, torch.Tensor):
            continue
        if call.output.shape[-1] == d_model and shared is None:
            shared = call.path
        elif call.output.shape[-1] == 1 and gate is None:
            gate = call.path
        else:
            raise ModelError(f"{call.path}: expected a shared expert or its gate, found neither")
    return shared, gate


def _norm_before(block: MoEBlock, calls: Sequence[_Call]) -> str:
    """The decoder block's child that runs just before the MoE block and hands it its input."""
    before: str | None = None
    for call in calls:
        if call.path == block.path:
            break
        parent, _, _ = call.path.rpartition(".")
        if parent == block.decoder_path and call.side == "output":
            before = call.path
    if before is None:
        raise ModelError(f"{block.path}: expected a norm to run before it, found nothing")
    return before


def _final_norm(calls: Sequence[_Call], layers_path: str) -> str:
    """The module that reads the residual stream after the last decoder block."""
    model_path = layers_path.rpartition(".")[0]
    last = max(i for i, call in enumerate(calls) if call.path.startswith(f"{layers_path}."))
    for call in calls[last + 1 :]:
        parent, _, _ = call.path.rpartition(".")
        if call.side == "input" and parent == model_path:
            return call.path
    raise ModelError(f"{model_path}: expected a final norm after the last layer, found none")
