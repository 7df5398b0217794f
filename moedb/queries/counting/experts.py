"""How often experts are chosen, alone, with another of their layer, or with one of the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING

from moedb.queries.counting.blocks import layers_of, read_blocks
from moedb.queries.counting.rows import Part, Rows, joined
from moedb.queries.counting.tokens import selected_tokens

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.blocks import Layer, Stretch
    from moedb.queries.counting.tokens import Grouped
    from moedb.store.reading.snapshot import RunSnapshot


def expert_pairs(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``expert_pairs`` does, its columns from ``layer`` on."""
    import numpy as np

    layers = layers_of(run)
    both = [np.zeros((layer.n_experts, layer.n_experts), np.int64) for layer in layers]
    adjacent = [np.zeros_like(counts) for counts in both]
    tokens = selected_tokens(connection, run.run_id, selection)
    for stretch in read_blocks(run):
        for place, experts in enumerate(_experts(stretch, tokens)):
            for i, j in combinations(range(layers[place].top_k), 2):
                counts = _joint(experts[:, i], experts[:, j], both[place].shape)
                both[place] += counts
                if j == i + 1:
                    adjacent[place] += counts
    parts: list[Part] = []
    for layer, ordered, ordered_adjacent in zip(layers, both, adjacent, strict=True):
        # the expert of the smaller rank need not be that of the smaller index
        counts, next_to = ordered + ordered.T, ordered_adjacent + ordered_adjacent.T
        a, b = np.triu(counts, 1).nonzero()
        parts.append(
            {
                "layer": layer.layer,
                "expert_a": a,
                "expert_b": b,
                "n_both": counts[a, b],
                "n_adjacent": next_to[a, b],
            }
        )
    return joined(("layer", "expert_a", "expert_b", "n_both", "n_adjacent"), parts)


def expert_usage(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``expert_usage`` does, its columns from ``layer`` on."""
    parts: list[Part] = []
    for layer, used in _used(connection, run, selection):
        counts = used.sum(axis=0)
        (expert,) = counts.nonzero()
        parts.append({"layer": layer.layer, "expert": expert, "n_decisions": counts[expert]})
    return joined(("layer", "expert", "n_decisions"), parts)


def rank_usage(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``rank_usage`` does, its columns from ``layer`` on."""
    parts: list[Part] = []
    for layer, counts in _used(connection, run, selection):
        rank, expert = counts.nonzero()
        parts.append(
            {
                "layer": layer.layer,
                "rank": rank,
                "expert": expert,
                "n_decisions": counts[rank, expert],
            }
        )
    return joined(("layer", "rank", "expert", "n_decisions"), parts)


def layer_pairs(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``layer_pairs`` does, its columns from ``layer`` on."""
    import numpy as np

    successive = list(pairwise(layers_of(run)))
    both = [np.zeros((one.n_experts, two.n_experts), np.int64) for one, two in successive]
    aligned = [np.zeros_like(counts) for counts in both]
    tokens = selected_tokens(connection, run.run_id, selection)
    for stretch in read_blocks(run):
        for place, (experts, following) in enumerate(pairwise(_experts(stretch, tokens))):
            for i, j in product(range(experts.shape[1]), range(following.shape[1])):
                counts = _joint(experts[:, i], following[:, j], both[place].shape)
                both[place] += counts
                if i == j:
                    aligned[place] += counts
    parts: list[Part] = []
    for (one, two), counts, at_rank in zip(successive, both, aligned, strict=True):
        expert, next_expert = counts.nonzero()
        parts.append(
            {
                "layer": one.layer,
                "next_layer": two.layer,
                "expert": expert,
                "next_expert": next_expert,
                "n_both": counts[expert, next_expert],
                "n_aligned": at_rank[expert, next_expert],
            }
        )
    return joined(("layer", "next_layer", "expert", "next_expert", "n_both", "n_aligned"), parts)


def _used(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str
) -> Iterator[tuple[Layer, NDArray[np.int64]]]:
    """For each layer (rank, expert): how often the expert is chosen at the rank."""
    import numpy as np

    layers = layers_of(run)
    used = [np.zeros((layer.top_k, layer.n_experts), np.int64) for layer in layers]
    tokens = selected_tokens(connection, run.run_id, selection)
    for stretch in read_blocks(run):
        for place, experts in enumerate(_experts(stretch, tokens)):
            for rank, chosen in enumerate(experts.T):
                used[place][rank] += np.bincount(chosen, minlength=layers[place].n_experts)
    yield from zip(layers, used, strict=True)


def _experts(stretch: Stretch, tokens: Grouped) -> Iterator[NDArray[np.int64]]:
    """For each layer (token, rank) of the stretch's tokens that are selected."""
    places, _ = tokens.within(stretch.first_token, stretch.n_tokens)
    for block in stretch.blocks:
        yield block.experts if len(places) == stretch.n_tokens else block.experts[places]


def _joint(
    one: NDArray[np.int64], two: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """(n, m): how often each pair of values occurs."""
    import numpy as np

    n, m = shape
    counts: NDArray[np.int64] = np.bincount(one * m + two, minlength=n * m).reshape(n, m)
    return counts
