"""Learning one block's wiring from a recorded forward pass."""

from collections.abc import Iterator
from typing import Any

import torch

from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.forward_recording import Recording, Seen
from moedb.capture.structure.probing.block_sum import (
    BlockSum,
    RoutedSum,
    experts_root,
    find_beside,
    find_sum,
)
from moedb.capture.structure.probing.shared_neurons import shared_neurons
from moedb.capture.structure.router_rule import RULES, RouterRule, are_probabilities, find_rule
from moedb.capture.structure.tap_wrappers import CHOICE, OUTPUTS
from moedb.capture.structure.taps import NEURONS
from moedb.capture.structure.wiring import BlockWiring
from moedb.errors import ModelError


class BlockProbe:
    """The search for one block's values.

    Parameters
    ----------
    model, recording
        The tapped model, and what was seen of it.
    block
        The block.
    d_model
        Width of the residual stream.

    Raises
    ------
    ModelError
        If the block did not run, or its experts are called or write in another way than expected.
    """

    def __init__(self, model: Any, recording: Recording, block: MoEBlock, d_model: int) -> None:
        self.model, self.recording, self.block, self.d_model = model, recording, block, d_model
        self.n_tokens = recording.n_tokens
        self.constants = _constants(model, block)
        self.order: Seen | None = None
        inputs = recording.of(block.path, "input")
        if not inputs:
            raise ModelError(f"{block.path}: expected to run in a forward pass, did not")
        self.experts, self.weights, self.inputs = self._routing()
        outputs = recording.of(f"{self._tap}.{OUTPUTS}", "output")
        self.outputs = outputs[0]
        width, top_k = self.outputs.value.shape[-1], self.experts.value.shape[-1]
        if width != d_model:
            raise ModelError(
                f"{block.experts_path}: expected experts that write to the residual stream's "
                f"{d_model} values, found {width}"
            )
        if top_k != block.top_k:
            raise ModelError(
                f"{block.path}: expected {block.top_k} experts for each token, found {top_k}"
            )

    @property
    def _tap(self) -> str:
        """The module that has the taps."""
        return self.block.path if self.block.form == "list" else self.block.experts_path

    def wire(self) -> tuple[BlockWiring, list[tuple[str, Seen]]]:
        """Find everything, with the role of each value.

        Raises
        ------
        ModelError
            If a value is not found; the message names the module.
        """
        block, recording = self.block, self.recording
        logits, rule, parts = self._router_and_sum()
        block_input = self._block_input()
        mid = find_residual_mid(recording, block, self.inputs, block_input)
        shared = parts.shared
        beside = None
        if not shared:
            beside = find_beside(recording, block, block_input.rows, parts.total, mid.rows)
            shared = (beside,) if beside else ()
        found = [
            ("residual_mid", mid),
            ("router_input", block_input),
            ("router_logits", logits),
            ("experts", self.experts),
            ("expert_outputs", self.outputs),
            ("block_output", parts.total),
            *(("shared_outputs", seen) for seen in shared),
        ]
        if self.weights is not None:
            found.append(("weights", self.weights))
        if self.order is not None:
            found.append(("weights_order", self.order))
        if parts.gate is not None:
            found.append(("shared_gate", parts.gate))
        for seen in recording.of(f"{self._tap}.{NEURONS}", "output"):
            found.append(("expert_neurons", seen))
        hidden = shared_neurons(self.model, recording, shared)
        if hidden is not None:
            found.append(("shared_neurons", hidden))
        wiring = BlockWiring(
            block,
            logits.path,
            rule,
            has_shared_expert=bool(shared),
            has_shared_gate=parts.gate is not None,
            routed_scale=parts.routed_scale,
            shared_scale=parts.shared_scale,
            shared_is_beside=beside is not None,
            d_shared=0 if hidden is None else hidden.value.shape[-1],
        )
        return wiring, found

    def _routing(self) -> tuple[Seen, Seen | None, torch.Tensor]:
        """The chosen experts and their weights, (token, rank), and what the experts read."""
        recording, block = self.recording, self.block
        if block.form == "list":
            experts = recording.of(f"{block.path}.{CHOICE}", "output")[0]
            wide = (s.rows for s in recording.of(block.path, "input") if self._is_wide(s))
            self.order, weights = self._routers_choice(experts.value)
            return experts, weights, next(wide)
        given = recording.of(block.experts_path, "input")
        for experts in given:
            if experts.value.dim() == 2 and experts.value.dtype in (torch.int64, torch.int32):
                for weights in given:
                    same = weights.value.shape == experts.value.shape
                    if same and weights.value.is_floating_point():
                        wide = (s.rows for s in given if self._is_wide(s))
                        inputs = next(wide, torch.empty(0, 0))
                        return experts, weights, inputs
        raise ModelError(
            f"{block.experts_path}: expected a call with (token, rank) indices and weights"
        )

    def _routers_choice(self, experts: torch.Tensor) -> tuple[Seen | None, Seen | None]:
        """The choice and its weights as a router in the block returns them, if one does."""
        shown = self.recording.under(self.block.path, "output")
        for choice in shown:
            if choice.key is not None and _is_choice(choice.value, experts):
                for weights in self.recording.of(choice.path, "output"):
                    same = weights.value.shape == choice.value.shape
                    if same and weights.value.is_floating_point():
                        return choice, weights
        return None, None

    def _is_wide(self, seen: Seen) -> bool:
        return seen.value.is_floating_point() and seen.rows.shape == (self.n_tokens, self.d_model)

    def _router_and_sum(self) -> tuple[Seen, RouterRule, BlockSum]:
        """The router's logits, the rule of the weights, and how the block's output adds up."""
        block, tried = self.block, 0
        candidates = list(self._logits())
        if not candidates:
            raise ModelError(
                f"{block.scope}: expected a router that gives one logit for each of "
                f"{block.n_experts} experts, found none"
            )
        others: list[tuple[Seen, RouterRule, BlockSum]] = []
        for logits in candidates:
            for weights in self._weights(logits):
                routed = RoutedSum.of(self.outputs.value, weights)
                parts = find_sum(
                    self.recording, block, routed, self.inputs, logits.path, self.constants
                )
                tried += 1
                if parts is None:
                    continue
                rule = find_rule(
                    logits.rows,
                    self.experts.value,
                    weights * parts.routed_scale,
                    self.constants,
                    self.outputs.value.dtype,
                )
                if rule.scoring != "other":
                    return logits, rule, parts
                others.append((logits, rule, parts))
        if others and self.weights is not None:
            return others[0]
        raise ModelError(
            f"{block.path}: expected its output to be its experts' outputs times their weights, "
            f"plus a shared expert if it has one; it is not, in none of {tried} ways tried"
        )

    def _weights(self, logits: Seen) -> Iterator[torch.Tensor]:
        """The weights, as seen; where they were not, those that the rules would give."""
        if self.weights is not None:
            weights = self.weights.value
            if self.order is not None:  # the tap gives experts in ascending order
                weights = weights.gather(-1, self.order.value.argsort(dim=-1))
            yield weights
            return
        for rule in RULES:
            yield rule.weights(logits.rows, self.experts.value)

    def _logits(self) -> Iterator[Seen]:
        """What may be the router's logits: of the module that gives the choice, then of others."""
        scope = self.block.path if self.block.form == "list" else self.block.scope
        shape = (self.n_tokens, self.block.n_experts)
        experts = experts_root(self.block)
        scores = [
            seen
            for seen in self.recording.under(scope, "output")
            if seen.value.is_floating_point()
            and seen.rows.shape == shape
            and not f"{seen.path}.".startswith(f"{experts}.")
            and not are_probabilities(seen.rows)
        ]
        routers = {
            seen.path
            for seen in self.recording.under(scope, "output")
            if seen.key is not None and _is_choice(seen.value, self.experts.value)
        }
        yield from sorted(scores, key=lambda seen: seen.path not in routers)

    def _block_input(self) -> Seen:
        """What router and experts read: the block's input, else what its experts are given."""
        for path in (self.block.path, self.block.experts_path):
            for seen in self.recording.of(path, "input"):
                if seen.equals(self.inputs):
                    return seen
        raise ModelError(f"{self.block.path}: expected its experts to read its input, found other")


def find_residual_mid(
    recording: Recording, block: MoEBlock, inputs: torch.Tensor, block_input: Seen
) -> Seen:
    """The stream that the block's norm reads, or the block itself where it has no norm.

    Parameters
    ----------
    recording, block
        What was seen of the model, and the block.
    inputs
        (token, d_model): what the block reads.
    block_input
        Where it was seen.
    """
    for seen in recording.under(block.decoder_path, "output"):
        if seen.position < block_input.position and seen.equals(inputs):
            for before in recording.of(seen.path, "input"):
                # A module that hands on what it is given, such as a dropout, is no norm.
                is_wide = before.value.is_floating_point() and before.rows.shape == inputs.shape
                if is_wide and not before.equals(inputs):
                    return before
    return block_input


def _is_choice(values: torch.Tensor, experts: torch.Tensor) -> bool:
    """Whether ``values`` are these experts, in any order for each token."""
    if values.shape != experts.shape or values.is_floating_point():
        return False
    return torch.equal(values.long().sort(dim=-1).values, experts.long().sort(dim=-1).values)


def _constants(model: Any, block: MoEBlock) -> set[float]:
    """The numbers that a block may scale by: those that its modules and their settings hold."""
    constants = {1.0, 0.5}
    for module in model.get_submodule(block.scope).modules():
        config = getattr(module, "config", None)
        for holder in (module, config):
            for value in vars(holder).values() if holder is not None else ():
                if type(value) in (int, float) and value != 0:
                    constants.add(float(value))
    return constants
