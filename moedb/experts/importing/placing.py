"""Where in a run labels belong: its layers, experts and tokens."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from moedb.errors import UsageError
from moedb.experts.importing.found import FoundLabel, Judged, one_line
from moedb.queries.analyses.experts.contexts.reading import read_decisions
from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.database import Database

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

_NUMBERED = re.compile(r"(?:^|[./])(?:layers?|h|blocks?)[./](\d{1,6})(?:[./]|$)")

_TOKENS = """
select tokens.token_idx, tokens.example_id
from tokens
where tokens.run_id = cast($run as varchar)
order by tokens.token_idx
""".strip()

_COUNTED = """
select routing.layer, routing.expert, count(*) as n
from routing
where routing.run_id = cast($run as varchar)
group by routing.layer, routing.expert
""".strip()


class Place:
    """The layers, experts and tokens of a run.

    Parameters
    ----------
    database, run
        The run, complete.
    asked_by
        Who asks, for errors.
    """

    def __init__(self, database: Database, run: "RunSnapshot", asked_by: str) -> None:
        self._database, self._run, self._asked_by = database, run, asked_by
        rows = run.manifest.layers
        self._sizes = {int(row["layer"]): int(row["n_experts"]) for row in rows}
        self._held: tuple[int, Mapping[int, frozenset[int]]] = (-1, {})
        self._modules = {str(row["module"]): int(row["layer"]) for row in rows}

    def layer_of(self, name: int | str) -> int | None:
        """The layer of a number or of a module's name; None where the run has none."""
        if isinstance(name, str):
            parts = _NUMBERED.search(name)
            named = self._modules.get(name)
            if named is not None or parts is None:
                return named
            name = int(parts[1])
        return name if name in self._sizes else None

    def why_not(self, label: FoundLabel) -> str | None:
        """Why a label has no place in the run; None where it has one."""
        layer = self.layer_of(label.layer)
        if layer is None:
            return f"labels of layer {one_line(str(label.layer), 60)}, which the run does not have"
        if label.expert >= self._sizes[layer]:
            return f"labels of experts of layer {layer} beyond its {self._sizes[layer]}"
        return None

    @property
    def layers(self) -> str:
        """The layers and how many experts they have, in words."""
        sizes = sorted(set(self._sizes.values()))
        experts = "" if len(sizes) > 1 else f" of {sizes[0]} experts"
        return f"{', '.join(map(str, self._sizes))}{experts}"

    @cached_property
    def n_decisions(self) -> Mapping[tuple[int, int], int]:
        """For each layer and expert how many tokens chose it."""
        rows = self._database.sql(_COUNTED, {"run": self._run.run_id}).fetchall()
        return {(int(layer), int(expert)): int(n) for layer, expert, n in rows}

    def examples_of(self, layer: int, expert: int, judged: Iterable[Judged]) -> dict[int, Any]:
        """For each token that verdicts are of its example and cluster.

        Raises
        ------
        UsageError
            If the run has no such token, or the router gave it to other experts than is said.
        """
        found = {}
        for each in judged:
            if each.token_idx is None:
                continue
            row = int(np.searchsorted(self._tokens[0], each.token_idx))
            if row == len(self._tokens[0]) or self._tokens[0][row] != each.token_idx:
                raise UsageError(
                    f"{each.where}: run {self._run.title} has no token {each.token_idx}",
                    "verdicts with token_idx are of the run that they were made on; leave "
                    "token_idx out for another one",
                )
            chose = each.token_idx in self._chose(layer).get(expert, frozenset())
            if chose != each.is_positive:
                raise UsageError(
                    f"{each.where}: is_positive is {str(each.is_positive).lower()}, but the router "
                    f"of layer {layer} {'gave' if chose else 'did not give'} token "
                    f"{each.token_idx} to expert {expert}",
                    "are the verdicts of this run? leave token_idx out for another one",
                )
            example = int(self._tokens[1][row])
            found[each.token_idx] = example, self._clusters[example]
        return found

    @cached_property
    def _tokens(self) -> tuple[Any, Any]:
        rows = self._database.sql(_TOKENS, {"run": self._run.run_id}).arrow()
        return tuple(rows[name].to_numpy() for name in ("token_idx", "example_id"))

    @cached_property
    def _clusters(self) -> Mapping[int, int]:
        """For each example its cluster, numbered among all as where labels are scored here."""
        examples = np.unique(self._tokens[1])
        found = clusters_of(self._database, self._run.run_id, self._asked_by, None).of(examples)
        return dict(zip(examples.tolist(), found.tolist(), strict=True))

    def _chose(self, layer: int) -> Mapping[int, frozenset[int]]:
        """For each expert the tokens that chose it; one layer is held at a time."""
        if self._held[0] != layer:
            rows = read_decisions(self._database, self._run.run_id, layer, None, None)
            parts = rows.parts.items()
            chosen = {expert: frozenset(rows.token_idx[part].tolist()) for expert, part in parts}
            self._held = layer, chosen
        return self._held[1]
