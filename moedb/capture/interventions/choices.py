"""What a user asks for, turned into conditions: kinds, layers, experts, tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from moedb.capture.interventions.kinds import Intervention
from moedb.capture.interventions.parent_run import ParentRun
from moedb.capture.pipeline.array_selection import parse_layers
from moedb.errors import UsageError, did_you_mean
from moedb.schemas.interventions import (
    ABLATE,
    EXPERT,
    FORCE,
    FORMS,
    KINDS,
    PATCH,
    RANDOM,
    REMOVE,
    RESIDUAL,
    SITES,
)

SPLITS = ("all", "clean", "corrupted")


@dataclass(frozen=True)
class Choices:
    """What is to be changed.

    Attributes
    ----------
    kinds
        Some of ``KINDS``.
    layers
        ``all``, or a list such as ``0,4-7``.
    experts, most_frequent, pairs
        Which experts: a list such as ``3,8-10``, the so many most frequent of each layer, or pairs
        of layer and expert. At most one of them.
    each
        Each expert is a condition of its own.
    form
        How experts are ablated; None for ``remove``.
    sites
        What is patched.
    roles
        Tokens to change: conditions with commas between, each of roles with + between; None for
        all tokens.
    together
        All layers are changed in one condition.
    draws, seed
        Random routings of each layer, and their seed; None for one draw.
    split
        Which examples are changed: ``all``, ``clean`` or ``corrupted``.
    """

    kinds: tuple[str, ...]
    layers: str = "all"
    experts: str | None = None
    most_frequent: int | None = None
    pairs: tuple[tuple[int, int], ...] | None = None
    each: bool = False
    form: str | None = None
    sites: tuple[str, ...] = ()
    roles: str | None = None
    together: bool = False
    draws: int | None = None
    seed: int = 0
    split: str = "all"

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UsageError(f"--kind is missing; valid: {', '.join(KINDS)}")
        for option, given, valid in (
            ("--kind", self.kinds, KINDS),
            ("--site", self.sites, SITES),
            ("--form", (self.form,) if self.form else (), FORMS),
            ("--split", (self.split,), SPLITS),
        ):
            for value in given:
                if value not in valid:
                    raise UsageError(f"{option} {value}: {did_you_mean(value, valid)}")
        named = self._experts_options
        if len(named) > 1:
            raise UsageError(f"{' and '.join(named)}: only one can say which experts")
        if self.each and self.together:
            raise UsageError("--each and --together: only one can be")
        if PATCH in self.kinds and not self.sites:
            raise UsageError(f"--kind patch: expected --site; valid: {', '.join(SITES)}")
        for option, is_given, kind in (
            ("--form", self.form is not None, ABLATE),
            ("--site", bool(self.sites), PATCH),
            ("--draws", self.draws is not None, RANDOM),
        ):
            if is_given and kind not in self.kinds:
                raise UsageError(f"{option}: only {kind} takes it")
        if self.draws is not None and self.draws < 1:
            raise UsageError(f"--draws {self.draws}: expected 1 or more")
        takers = self._takers
        if takers and not named:
            raise UsageError(
                f"{takers[0]}: expected experts",
                "name them: --experts 3,8, --most-frequent M, or --experts-sql with a query that "
                "gives layer and expert",
            )
        if named and not takers:
            raise UsageError(
                f"{named[0]}: none of {', '.join(self.kinds)} is about single experts; "
                f"{ABLATE}, {FORCE} and patch --site {EXPERT} are"
            )
        if self.each and not takers:
            raise UsageError("--each: expected a kind that is about single experts")

    @property
    def _experts_options(self) -> list[str]:
        given = {
            "--experts": self.experts,
            "--most-frequent": self.most_frequent,
            "--experts-sql": self.pairs,
        }
        return [option for option, value in given.items() if value is not None]

    @property
    def _takers(self) -> list[str]:
        """The kinds that are about experts which the user names."""
        taking = [kind for kind in self.kinds if kind in (ABLATE, FORCE)]
        return taking + [f"patch --site {EXPERT}"] * (EXPERT in self.sites)


def interventions_of(
    choices: Choices, parent: ParentRun, n_layers: int
) -> tuple[Intervention, ...]:
    """Every condition that is asked for, but for the untouched model.

    Parameters
    ----------
    choices
        What the user asks for.
    parent
        The run.
    n_layers
        Decoder layers of the model, with or without an MoE block.

    Raises
    ------
    UsageError
        If a layer, an expert or a role is none that there is, or a layer has too few experts.
    """
    groups = _role_groups(choices.roles, parent.roles)
    found: list[Intervention] = []
    kinds = dict.fromkeys(choices.kinds)
    for kind in kinds:
        for site in dict.fromkeys(choices.sites) if kind == PATCH else (None,):
            layers = _layers(choices.layers, parent, n_layers if site == RESIDUAL else None)
            sets: list[dict[int, tuple[int, ...]]] = [dict.fromkeys(layers, ())]
            if kind in (ABLATE, FORCE) or site == EXPERT:
                sets = _expert_sets(choices, parent, layers)
            params: dict[str, Any] = {}
            if kind == ABLATE:
                params["form"] = choices.form or REMOVE
            if site is not None:
                params["site"] = site
            draws: Sequence[dict[str, Any]] = [{}]
            if kind == RANDOM:
                draws = [{"seed": choices.seed, "draw": d} for d in range(choices.draws or 1)]
            parts = [{layer: experts} for each in sets for layer, experts in each.items()]
            for changed, roles, draw in product(sets if choices.together else parts, groups, draws):
                experts = {layer: own for layer, own in changed.items() if own}
                found.append(Intervention(kind, tuple(changed), experts, roles, params | draw))
    for intervention in found:
        _check_experts(intervention, parent)
    return tuple(found)


def _layers(text: str, parent: ParentRun, n_layers: int | None) -> tuple[int, ...]:
    """The layers to change; with ``n_layers`` any layer will do, not only those with experts."""
    if n_layers is None:
        return parse_layers(text, [row["layer"] for row in parent.layers])
    if text == "all":
        return tuple(range(n_layers))
    try:
        return parse_layers(text, range(n_layers + 1))
    except UsageError as error:
        raise UsageError(
            f"layers {text!r}: the residual stream is that entering a layer, 0 to {n_layers - 1}, "
            f"or {n_layers} for the one after the last layer"
        ) from error


def _role_groups(text: str | None, known: Sequence[str]) -> list[tuple[str, ...]]:
    if text is None:
        return [()]
    groups = []
    for group in text.lower().split(","):
        roles = tuple(dict.fromkeys(part.strip() for part in group.split("+")))
        unknown = [role for role in roles if role not in known and roles != ("all",)]
        if unknown:
            raise UsageError(
                f"--roles {text}: no token has the role {unknown[0]!r}; "
                f"{did_you_mean(unknown[0], [*known, 'all'])}",
                "commas stand between conditions, + between roles that change together: s2+end,io",
            )
        groups.append(() if roles == ("all",) else roles)
    return groups


def _expert_sets(
    choices: Choices, parent: ParentRun, layers: Sequence[int]
) -> list[dict[int, tuple[int, ...]]]:
    """What to change at once: for each layer its experts; several where each is on its own."""
    chosen: dict[int, tuple[int, ...]]
    if choices.experts is not None:
        experts = _parse_experts(choices.experts)
        chosen = dict.fromkeys(layers, experts)
    elif choices.most_frequent is not None:
        if choices.most_frequent < 1:
            raise UsageError(f"--most-frequent {choices.most_frequent}: expected 1 or more")
        counts = parent.expert_counts()
        chosen = {
            layer: tuple(expert for expert, _ in counts[layer][: choices.most_frequent])
            for layer in layers
        }
    else:
        chosen = _of_pairs(choices, parent, layers)
    if not choices.each:
        return [{layer: tuple(sorted(experts)) for layer, experts in chosen.items()}]
    return [{layer: (expert,)} for layer, experts in chosen.items() for expert in experts]


def _of_pairs(
    choices: Choices, parent: ParentRun, layers: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    found: dict[int, set[int]] = {}
    known = [row["layer"] for row in parent.layers]
    for layer, expert in choices.pairs or ():
        if layer not in known:
            raise UsageError(
                f"--experts-sql: gives layer {layer}; the MoE layers of run "
                f"{parent.snapshot.run_id} are {known[0]} to {known[-1]}"
            )
        found.setdefault(layer, set()).add(expert)
    chosen = {layer: tuple(sorted(found[layer])) for layer in layers if layer in found}
    if not chosen:
        raise UsageError(
            f"--experts-sql: gives no expert of the layers {choices.layers}",
            "see what it gives: moedb sql '...'",
        )
    return chosen


def _parse_experts(text: str) -> tuple[int, ...]:
    experts: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match.group(2) or match.group(1)) < int(match.group(1)):
            raise UsageError(f"--experts {text!r}: valid are 3, 0,2 and 4-7")
        experts.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return tuple(sorted(experts))


def _check_experts(intervention: Intervention, parent: ParentRun) -> None:
    sizes: Mapping[int, Mapping[str, Any]] = {row["layer"]: row for row in parent.layers}
    for layer, experts in intervention.experts.items():
        n_experts, top_k = sizes[layer]["n_experts"], sizes[layer]["top_k"]
        unknown = [expert for expert in experts if not 0 <= expert < n_experts]
        if unknown:
            raise UsageError(
                f"layer {layer} has no expert {unknown[0]}; its experts are 0 to {n_experts - 1}"
            )
        if intervention.removes and n_experts - len(experts) < top_k:
            raise UsageError(
                f"layer {layer}: without {len(experts)} of its {n_experts} experts the router "
                f"cannot choose {top_k}; at most {n_experts - top_k} can be removed",
                "--form zero takes any number",
            )
        if intervention.kind == FORCE and len(experts) > top_k:
            raise UsageError(
                f"{FORCE}: {len(experts)} experts at layer {layer}, whose router chooses {top_k}; "
                f"name up to {top_k}",
                "--each forces them one by one",
            )
