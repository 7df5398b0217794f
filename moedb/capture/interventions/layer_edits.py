"""The edits of one layer in one pass, applied to its values as they come up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from moedb.capture.interventions import edit_arithmetic as change
from moedb.capture.interventions.kinds import Intervention
from moedb.capture.structure.wiring import BlockWiring
from moedb.schemas.interventions import (
    ABLATE,
    BLOCK,
    EXPERT,
    FORCE,
    KNOCK_OUT,
    PATCH,
    RANDOM,
    UNIFORM,
)

_OF_VALUE = {
    "residual_pre": "residual",
    "attention_output": "attention-output",
    "shared_outputs": "shared-output",
    "block_output": "block-output",
}
"""The site that each value is patched for."""


@dataclass(frozen=True)
class Edit:
    """An intervention on some rows of a pass.

    Attributes
    ----------
    intervention
        The change.
    rows, twins
        The rows that are changed; the numbers of the rows that their twins' values come from, in
        the same order, or None where no twin is needed. Values are taken as they are before any
        edit of the layer, so at a first layer that is changed the twins may be among the rows.
    tokens
        (row, position): which tokens are changed, never padding.
    drawn
        For each layer the experts drawn, (row, position, rank).
    """

    intervention: Intervention
    rows: slice
    twins: torch.Tensor | None
    tokens: torch.Tensor
    drawn: Mapping[int, torch.Tensor] = field(default_factory=dict)


class LayerEdits:
    """Applies the edits of one layer.

    Parameters
    ----------
    layer, wiring
        The layer; None for one without an MoE block.
    edits
        The edits of the pass, of whichever layers.
    shape
        Rows and positions of the pass.
    watched
        (row, position): the tokens of which to count those whose experts are not the top-k of their
        logits; None to count none.
    """

    def __init__(
        self,
        layer: int,
        wiring: BlockWiring | None,
        edits: Sequence[Edit],
        shape: tuple[int, int],
        watched: torch.Tensor | None = None,
    ) -> None:
        self._layer, self._wiring, self._shape = layer, wiring, shape
        self._edits = [edit for edit in edits if layer in edit.intervention.layers]
        self._watched = watched
        self._logits = self._experts = self._weights = torch.empty(0)
        self._added: dict[int, torch.Tensor] = {}
        self.n_not_top_k = 0

    @property
    def values(self) -> frozenset[str]:
        """The values that the edits want to see, by the probe's names."""
        found = {name for edit in self._edits for name in edit.intervention.values}
        if self._watched is not None:
            found |= {"router_logits", "experts"}
        if self._wiring is not None and self._wiring.shared_is_beside and "block_output" in found:
            found.add("shared_outputs")
        return frozenset(found)

    def change(self, seen: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take the values of one place; return those that change."""
        changed = {}
        if "router_logits" in seen:
            self._logits = self._by_row(seen["router_logits"])
        if "experts" in seen:
            self._experts = self._by_row(seen["experts"]).long()
            if self._watched is not None and self._wiring is not None:
                fits = change.is_top_k(self._wiring.rule, self._logits, self._experts)
                self.n_not_top_k = int((self._watched.to(fits.device) & ~fits).sum())
        if "weights" in seen:
            self._weights = self._by_row(seen["weights"])
            if any(edit.intervention.reroutes for edit in self._edits):
                changed["experts"], changed["weights"] = self._rerouted(seen)
        if "expert_outputs" in seen:
            changed |= self._expert_outputs(seen["expert_outputs"])
        for name in _OF_VALUE:
            if name in seen:
                changed |= self._stream(name, seen[name])
        return changed

    def _by_row(self, values: torch.Tensor, own: int = 1) -> torch.Tensor:
        """(row, position, ...), where ``own`` counts a token's own dimensions."""
        return values.reshape(*self._shape, *values.shape[-own:])

    def _tokens(self, edit: Edit, like: torch.Tensor) -> torch.Tensor:
        """Which tokens an edit changes, with dimensions of size 1 to fit the values ``like``."""
        tokens = edit.tokens.to(like.device)
        return tokens.reshape(*tokens.shape, *[1] * (like.dim() - 2))

    def _rerouted(self, seen: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        experts, weights = self._experts.clone(), self._weights.clone()
        for edit in self._edits:
            if edit.intervention.reroutes:
                chosen, found = self._routing(edit)
                tokens = self._tokens(edit, experts)
                found = found.to(weights.dtype)
                experts[edit.rows] = torch.where(tokens, chosen, experts[edit.rows])
                weights[edit.rows] = torch.where(tokens, found, weights[edit.rows])
        shape = seen["experts"].shape
        return experts.to(seen["experts"].dtype).reshape(shape), weights.reshape(shape)

    def _routing(self, edit: Edit) -> tuple[torch.Tensor, torch.Tensor]:
        """The experts and weights of an edit's rows, wherever it changes them."""
        kind, rows = edit.intervention.kind, edit.rows
        experts, weights = self._experts[rows], self._weights[rows]
        if kind == UNIFORM:
            return experts, change.with_equal_weights(weights)
        if edit.twins is not None:
            return self._experts[edit.twins], self._weights[edit.twins]
        assert self._wiring is not None  # noqa: S101 - a routing has a router
        rule, scale = self._wiring.rule, self._wiring.routed_scale
        logits = self._logits[rows]
        if kind == ABLATE:
            ablated = edit.intervention.experts[self._layer]
            return change.without_experts(rule, logits, experts, weights, ablated, scale)
        factors = torch.ones(experts.shape[-1], device=experts.device)
        if kind == RANDOM:
            chosen = edit.drawn[self._layer].to(experts.device)
        elif kind == FORCE:
            wanted = edit.intervention.experts[self._layer]
            slots, zeros = change.forced(wanted, experts.shape[-1])
            chosen = torch.tensor(slots, device=experts.device).expand_as(experts)
            factors = torch.tensor(zeros, device=experts.device)
            # The rule makes the weights of the set alone; the slots to spare repeat an expert.
            found = rule.weights(logits, chosen[..., : len(wanted)])
            spare = found.new_zeros(*found.shape[:-1], len(slots) - len(wanted))
            return chosen, torch.cat([found, spare], dim=-1) / scale
        else:
            raise ValueError(f"{kind} changes no routing")
        return chosen, rule.weights(logits, chosen) * factors / scale

    def _expert_outputs(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs, changed = self._by_row(values, own=2), False
        for index, edit in enumerate(self._edits):
            intervention = edit.intervention
            if intervention.kind == ABLATE and not intervention.removes:
                if not changed:
                    outputs, changed = outputs.clone(), True
                ablated = intervention.experts[self._layer]
                gone = change.is_among(self._experts[edit.rows], ablated).unsqueeze(-1)
                gone = gone & self._tokens(edit, outputs)
                outputs[edit.rows] = outputs[edit.rows].masked_fill(gone, 0)
            elif intervention.site == EXPERT:
                assert edit.twins is not None and self._wiring is not None  # noqa: S101
                wanted = intervention.experts[self._layer]
                own, twins = (
                    change.contribution(
                        self._experts[rows], self._weights[rows], outputs[rows], wanted
                    )
                    for rows in (edit.rows, edit.twins)
                )
                self._added[index] = (twins - own) * self._wiring.routed_scale
        return {"expert_outputs": outputs.reshape(values.shape)} if changed else {}

    def _stream(self, name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Change a value that is d_model wide."""
        rows, changed = self._by_row(values), False
        for index, edit in enumerate(self._edits):
            new = self._replacement(index, edit, name, rows)
            if new is not None:
                if not changed:
                    rows, changed = rows.clone(), True
                tokens = self._tokens(edit, rows)
                rows[edit.rows] = torch.where(tokens, new.to(rows.dtype), rows[edit.rows])
        return {name: rows.reshape(values.shape)} if changed else {}

    def _replacement(
        self, index: int, edit: Edit, name: str, rows: torch.Tensor
    ) -> torch.Tensor | None:
        """What an edit puts in the place of its rows, if it is about this value."""
        intervention, own = edit.intervention, rows[edit.rows]
        if intervention.kind == KNOCK_OUT and name == "shared_outputs":
            return torch.zeros_like(own)
        if intervention.site == EXPERT and name == "block_output":
            return own + self._added[index].to(own.device)
        sites = {_OF_VALUE[name]}
        if self._wiring is not None and self._wiring.shared_is_beside and name == "shared_outputs":
            sites.add(BLOCK)  # what is called the block's output then includes it
        if intervention.kind == PATCH and intervention.site in sites and edit.twins is not None:
            return rows[edit.twins]
        return None
