"""The kinds of interventions, and what each of them needs of a model and of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moedb.capture.conditions import Condition
from moedb.schemas.interventions import (
    ABLATE,
    ATTENTION,
    BLOCK,
    EXPERT,
    FORCE,
    KNOCK_OUT,
    PATCH,
    RANDOM,
    REMOVE,
    RESIDUAL,
    SHARED,
    SWAP,
    UNIFORM,
)

# What is edited or read of a layer, by the names that the probe gives its values.
_OF_SITE = {
    BLOCK: ("block_output",),
    EXPERT: ("experts", "weights", "expert_outputs", "block_output"),
    SHARED: ("shared_outputs",),
    ATTENTION: ("attention_output",),
    RESIDUAL: ("residual_pre",),
}
_ROUTING = ("router_logits", "experts", "weights")


@dataclass(frozen=True)
class Intervention:
    """One change of the model: a condition, with every choice resolved.

    Attributes
    ----------
    kind
        One of ``KINDS``.
    layers
        The layers that are changed, in order.
    experts
        For each layer the experts it is about; empty where the kind is about none.
    roles
        The tokens that are changed, by their label ``role``; empty for all tokens.
    params
        ``form``, ``site``, ``seed`` and ``draw``, where the kind has them.
    """

    kind: str
    layers: tuple[int, ...]
    experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> str | None:
        """How experts are ablated."""
        return self.params.get("form")

    @property
    def site(self) -> str | None:
        """What is patched."""
        return self.params.get("site")

    @property
    def first_layer(self) -> int:
        """The layers before it are as in the untouched model."""
        return min(self.layers)

    @property
    def needs_twins(self) -> bool:
        """Whether values of the examples' twins are put into the examples."""
        return self.kind in (SWAP, PATCH)

    def needs_sources(self, with_twins: bool) -> bool:
        """Whether untouched rows must run beside the changed ones, for twins' values.

        At the first layer that is changed, a row has its untouched values until it is changed, so
        rows that run with their twins (``with_twins``) can take them from each other.
        """
        return self.needs_twins and not (with_twins and len(self.layers) == 1)

    @property
    def reroutes(self) -> bool:
        """Whether the experts are handed another routing than their router's."""
        return self.kind in (RANDOM, UNIFORM, FORCE, SWAP) or self.removes

    @property
    def removes(self) -> bool:
        """Whether experts leave the candidates of the router's top-k."""
        return self.kind == ABLATE and self.form == REMOVE

    @property
    def makes_weights(self) -> bool:
        """Whether the router's rule gives weights that the router itself did not give."""
        return self.kind in (RANDOM, FORCE) or self.removes

    @property
    def needs_shared_expert(self) -> bool:
        """Whether it is about the shared expert."""
        return self.kind == KNOCK_OUT or self.site == SHARED

    @property
    def values(self) -> tuple[str, ...]:
        """What it edits or reads of a layer."""
        if self.site is not None:
            return _OF_SITE[self.site]
        if self.kind == KNOCK_OUT:
            return ("shared_outputs",)
        return _ROUTING if self.reroutes else ("experts", "expert_outputs")

    @property
    def condition(self) -> Condition:
        """Its row of the table ``conditions``."""
        params = dict(self.params)
        one_layer = self.layers[0] if len(self.layers) == 1 else None
        expert = None
        if one_layer is None:
            params["layers"] = list(self.layers)
        if self.experts:
            sets = {tuple(experts) for experts in self.experts.values()}
            [experts, *others] = sorted(sets)
            expert = experts[0] if len(experts) == 1 and not others else None
            if others:
                params["experts"] = {str(layer): list(e) for layer, e in self.experts.items()}
            elif expert is None:
                params["experts"] = list(experts)
        if self.roles:
            params["roles"] = list(self.roles)
        return Condition(self.kind, one_layer, expert, params)
