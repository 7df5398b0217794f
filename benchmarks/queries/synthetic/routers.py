"""What made-up routers say of tokens: the rows of routing, router_stats and router_mass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.queries.synthetic.settings import KINDS, Settings
from benchmarks.queries.synthetic.vocabulary import Vocabulary
from moedb.schemas.tables import ROUTER_MASS

Columns = dict[str, Any]


class Routers:
    """What the routers of a model prefer: of every layer (value, expert) in logits."""

    def __init__(self, settings: Settings) -> None:
        self.vocabulary = Vocabulary(settings.seed)
        rng = np.random.default_rng([settings.seed, 2])
        shape = (settings.layers, settings.experts)
        n_groups, n_tags = self.vocabulary.n_groups, len(self.vocabulary.tags)
        n_kinds = len(KINDS[settings.job])
        # beside each other: a token's logits are three rows of tables, looked up and added
        self.of_group = _drawn(rng, 0.8, (n_groups, *shape)) + _drawn(rng, 0.5, (1, *shape))
        self.of_tag = _drawn(rng, 0.5, (n_tags, *shape))
        self.of_kind = _drawn(rng, 0.5, (n_kinds, *shape))
        if settings.checkpoint:
            other = np.random.default_rng([settings.seed, 3, settings.checkpoint])
            self.of_group += _drawn(other, 0.4 * settings.checkpoint, (n_groups, *shape))


def _drawn(rng: np.random.Generator, spread: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.float32(spread) * rng.standard_normal(shape, dtype=np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest bfloat16, of two as near the even one; the values are float32."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


@dataclass(frozen=True)
class UnitTokens:
    """The tokens of a unit.

    Attributes
    ----------
    unit
        The unit's number.
    token_idx, token_id, tag, kind
        (token,) the token's number, its id, its tag, and the kind of its example.
    example_ids, starts
        (example,) the example's number, and where its tokens begin.
    """

    unit: int
    token_idx: NDArray[Any]
    token_id: NDArray[Any]
    tag: NDArray[Any]
    kind: NDArray[Any]
    example_ids: NDArray[Any]
    starts: NDArray[Any]

    def __len__(self) -> int:
        return len(self.token_idx)


def router_tables(settings: Settings, model: Routers, tokens: UnitTokens) -> dict[str, Columns]:
    """The rows of ``routing``, ``router_stats`` and ``router_mass``, layer by layer."""
    rng = np.random.default_rng([settings.seed, 5, settings.checkpoint, tokens.unit])
    group = model.vocabulary.groups[tokens.token_id]
    n_tokens, k = len(tokens), settings.top_k
    routing: list[Columns] = []
    stats: list[Columns] = []
    mass: list[Columns] = []
    for layer in range(settings.layers):
        logits = (
            model.of_group[group, layer]
            + model.of_tag[tokens.tag, layer]
            + model.of_kind[tokens.kind, layer]
        )
        logits += _drawn(rng, 0.7, logits.shape)
        experts = _largest(logits, k)
        scores = np.exp(logits)
        total = scores.sum(axis=1, keepdims=True)
        probabilities = scores / total
        logsumexp = np.log(total[:, 0])
        chosen = np.take_along_axis(probabilities, experts, axis=1)
        second = chosen[:, 1] if k > 1 else np.partition(probabilities, -2, axis=1)[:, -2]
        weights = to_bfloat16(chosen)
        norms = np.exp(_drawn(rng, 0.3, (n_tokens, k)) + np.float32(1.0))
        routing.append(
            {
                "token_idx": np.repeat(tokens.token_idx, k),
                "layer": np.full(n_tokens * k, layer, np.int32),
                "rank": np.tile(np.arange(k, dtype=np.int32), n_tokens),
                "expert": experts.ravel(),
                "weight": weights.ravel(),
                "output_norm": norms.ravel(),
            }
        )
        expected = np.einsum("te,te->t", probabilities, logits)
        stats.append(
            {
                "token_idx": tokens.token_idx,
                "layer": np.full(n_tokens, layer, np.int32),
                "entropy": (logsumexp - expected) / np.float32(np.log(2)),
                "margin": chosen[:, 0] - second,
                "logsumexp": logsumexp,
                "topk_mass": chosen.sum(axis=1),
                "shared_gate": 1 / (1 + np.exp(-_drawn(rng, 1.0, (n_tokens,)))),
                "moe_output_norm": np.exp(_drawn(rng, 0.3, (n_tokens,))),
            }
        )
        mass.append(_mass(layer, probabilities, experts, weights, tokens))
    return {
        "routing": _joined(routing),
        "router_stats": _joined(stats),
        "router_mass": _joined(mass),
    }


def _largest(logits: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """(token, k): the experts with the largest logits, in order; ``logits`` stays as it was."""
    left = logits.copy()
    rows = np.arange(len(logits))
    experts = np.empty((len(logits), k), np.int32)
    for rank in range(k):
        experts[:, rank] = left.argmax(axis=1)
        left[rows, experts[:, rank]] = -np.inf
    return experts


def _mass(
    layer: int,
    probabilities: NDArray[np.float32],
    experts: NDArray[np.int32],
    weights: NDArray[np.float32],
    tokens: UnitTokens,
) -> Columns:
    """What each example gives each expert; of what is known, the columns that the table has."""
    n_tokens, n_experts = probabilities.shape
    n_examples = len(tokens.example_ids)
    owner = np.searchsorted(tokens.starts, np.arange(n_tokens), side="right") - 1
    cell = (owner[:, None] * n_experts + experts).ravel()
    n_cells = n_examples * n_experts
    known = {
        "example_id": np.repeat(tokens.example_ids, n_experts),
        "layer": np.full(n_cells, layer, np.int32),
        "expert": np.tile(np.arange(n_experts, dtype=np.int32), n_examples),
        "probability": np.add.reduceat(probabilities, tokens.starts, dtype=np.float64).ravel(),
        "n_decisions": np.bincount(cell, minlength=n_cells),
        "weight": np.bincount(cell, weights.ravel(), minlength=n_cells),
    }
    return {name: known[name] for name in ROUTER_MASS.column_names[1:]}


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
