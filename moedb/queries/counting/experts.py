"""How often experts are chosen, alone, with another of their layer, or with one of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from moedb.queries.counting.decisions.layers import is_rolled_up, layers_of, slabs_of
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.decisions.rows import Part, Rows, joined
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.decisions.workspace import constant, scratch
from moedb.queries.counting.tokens import selected_tokens

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.layers import Layer
    from moedb.queries.counting.decisions.stretches import Slab, Stretch
    from moedb.queries.counting.tokens import Grouped
    from moedb.store.reading.snapshot import RunSnapshot


_USAGE = """
select expert_usage.layer, expert_usage.expert, expert_usage.n_decisions
from expert_usage
where
    expert_usage.run_id = cast($run as varchar)
    and expert_usage.selection = cast($selection as varchar)
"""


def expert_pairs(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``expert_pairs`` does, its columns from ``layer`` on."""
    return _counted_pairs(connection, run, selection, "n_both", _pairs)


def adjacent_pairs(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``adjacent_pairs`` does, its columns from ``layer`` on."""
    return _counted_pairs(connection, run, selection, "n_adjacent", _neighbours)


def _counted_pairs(
    connection: duckdb.DuckDBPyConnection,
    run: RunSnapshot,
    selection: str,
    name: str,
    count: Callable[[Grouped, Stretch], list[NDArray[np.int64]]],
) -> Rows:
    import numpy as np

    tokens = selected_tokens(connection, run, selection)
    shapes = [(len(layers), layers[0].n_experts) for layers in slabs_of(run)]
    pairs = [np.zeros((n, experts, experts), np.int64) for n, experts in shapes]
    for of_stretch in each_stretch(run, partial(count, tokens)):
        for place, counted in enumerate(of_stretch):
            pairs[place] += counted
    parts: list[Part] = []
    for layer, of_layer in zip(layers_of(run), chain(*pairs), strict=True):
        # the expert of the smaller rank need not be that of the smaller index
        counts = of_layer + of_layer.T
        a, b = np.triu(counts, 1).nonzero()
        parts.append({"layer": layer.layer, "expert_a": a, "expert_b": b, name: counts[a, b]})
    return joined(("layer", "expert_a", "expert_b", name), parts)


def usage_of_pairs(of_pairs: Rows, run: RunSnapshot) -> Rows:
    """Work out what the view ``expert_usage`` does, its columns from ``layer`` on.

    Parameters
    ----------
    of_pairs
        What :func:`expert_pairs` counted. Of ``k`` experts a token chooses each is with ``k - 1``
        others, so that the pairs tell how often each is chosen.
    run
        The run.

    Raises
    ------
    UnorderedError
        If tokens of a layer choose a single expert, which leaves no pairs.
    """
    import numpy as np

    parts: list[Part] = []
    for layer in layers_of(run):
        if layer.top_k < 2:
            raise UnorderedError
        of_layer = np.asarray(of_pairs["layer"]) == layer.layer
        partners = np.zeros(layer.n_experts, np.int64)
        for side in ("expert_a", "expert_b"):
            np.add.at(partners, of_pairs[side][of_layer], of_pairs["n_both"][of_layer])
        (expert,) = partners.nonzero()
        n = partners[expert] // (layer.top_k - 1)
        parts.append({"layer": layer.layer, "expert": expert, "n_decisions": n})
    return joined(("layer", "expert", "n_decisions"), parts)


def pair_chances(usage: Rows, run: RunSnapshot) -> Rows:
    """Work out what the view ``pair_chances`` does, its columns from ``layer`` on.

    Parameters
    ----------
    usage
        What :func:`expert_usage` counted.
    run
        The run.
    """
    import numpy as np

    parts: list[Part] = []
    for layer in layers_of(run):
        of_layer = np.asarray(usage["layer"]) == layer.layer
        expert, n = np.asarray(usage["expert"])[of_layer], usage["n_decisions"][of_layer]
        n_tokens = np.array([n.sum() // layer.top_k])
        a, b = np.triu_indices(len(expert), 1)
        (expected,) = expected_pairs(n[None], n_tokens, layer.top_k, a, b)
        low, high = np.minimum(expert[a], expert[b]), np.maximum(expert[a], expert[b])
        parts.append(
            {
                "layer": layer.layer,
                "expert_a": low,
                "expert_b": high,
                "expected": expected,
            }
        )
    return joined(("layer", "expert_a", "expert_b", "expected"), parts)


def expert_usage(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``expert_usage`` does, its columns from ``layer`` on.

    By that view itself where what each example's tokens chose is a fraction of the decisions.
    """
    if is_rolled_up(run):
        given = {"run": run.run_id, "selection": selection}
        return dict(connection.execute(_USAGE, given).fetchnumpy())
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
    tokens = selected_tokens(connection, run, selection)
    for of_stretch in each_stretch(run, partial(_successors, tokens)):
        for place, (all_pairs, at_rank) in enumerate(of_stretch):
            both[place] += all_pairs
            aligned[place] += at_rank
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


def expected_pairs(
    n: NDArray[np.number[Any]],
    n_tokens: NDArray[np.number[Any]],
    top_k: int,
    a: NDArray[np.int64],
    b: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Work out how many tokens choose two experts by chance, as the view's SQL explains.

    Parameters
    ----------
    n
        (count, expert): how often each expert is chosen, counted in several ways.
    n_tokens
        (count,): by how many tokens.
    top_k
        How many experts a token chooses.
    a, b
        (pair,): the experts of each pair, two that differ.

    Returns
    -------
    (count, pair)
    """
    import numpy as np

    expected = np.empty((len(n), len(a)))
    is_always = n == n_tokens[:, None]
    never_always = ~is_always.any(axis=1)
    expected[never_always] = _drawn_pairs(n[never_always], n_tokens[never_always], top_k, a, b)
    for at in np.flatnonzero(~never_always):
        always = is_always[at]
        # beside one that every token chooses the other alone decides
        expected[at] = np.where(always[a], n[at, b], n[at, a])
        (both,) = (~always[a] & ~always[b]).nonzero()
        number = np.cumsum(~always) - 1
        expected[at, both] = _drawn_pairs(
            n[at : at + 1, ~always],
            n_tokens[at : at + 1],
            top_k - int(always.sum()),
            number[a[both]],
            number[b[both]],
        )[0]
    return expected


def _drawn_pairs(
    n: NDArray[np.number[Any]],
    n_tokens: NDArray[np.number[Any]],
    n_drawn: int,
    a: NDArray[np.int64],
    b: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The same where no expert is chosen by every token, of ``n_drawn`` that a token draws."""
    import numpy as np

    n_experts = n.shape[1]
    if n_drawn < 2:
        return np.zeros((len(n), len(a)))
    rate = n.astype(np.float64) / n_tokens[:, None].astype(np.float64)
    rare = 1 - rate
    spread = (rate * rare).sum(axis=1)
    affinity = rare[:, :, None] * (-rare / spread[:, None])[:, None, :]
    np.exp(affinity, out=affinity)
    if n_drawn == 2:
        affinity[:] = 1
    affinity[:, np.arange(n_experts), np.arange(n_experts)] = 0
    partners = (n_drawn - 1) * n.astype(np.float64)[:, :, None]
    prior = scale = rate[:, :, None]
    for _ in range(6):
        prior, scale = scale, partners / (affinity @ scale)
    (scale_a, prior_a), (scale_b, prior_b) = (
        [each[:, of, 0] for each in (scale, prior)] for of in (a, b)
    )
    both: NDArray[np.float64] = scale_a * prior_b + scale_b * prior_a
    both *= np.take(affinity.reshape(len(n), n_experts**2), a * n_experts + b, axis=1) / 2
    return both


def _used(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str
) -> Iterator[tuple[Layer, NDArray[np.int64]]]:
    """For each layer (rank, expert): how often the expert is chosen at the rank."""
    import numpy as np

    tokens = selected_tokens(connection, run, selection)
    shapes = [(len(of), of[0].top_k, of[0].n_experts) for of in slabs_of(run)]
    used = [np.zeros(shape, np.int64) for shape in shapes]
    for of_stretch in each_stretch(run, partial(_ranks, tokens)):
        for place, counts in enumerate(of_stretch):
            used[place] += counts
    yield from zip(layers_of(run), chain(*used), strict=True)


def _pairs(tokens: Grouped, stretch: Stretch) -> list[NDArray[np.int64]]:
    """For each slab (layer, expert, expert): those of smaller and of larger rank."""
    # every pair of ranks is r and r + apart for one distance
    return [_at_distances(slab, range(1, max(2, slab.top_k))) for slab in tokens.chosen_by(stretch)]


def _neighbours(tokens: Grouped, stretch: Stretch) -> list[NDArray[np.int64]]:
    """The same for those at ranks r and r + 1."""
    return [_at_distances(slab, range(1, 2)) for slab in tokens.chosen_by(stretch)]


def _at_distances(slab: Slab, distances: Sequence[int]) -> NDArray[np.int64]:
    import numpy as np

    n_layers, n_experts = len(slab.layers), slab.n_experts
    numbered, experts = _numbered(slab), _by_rank(slab)
    counts = np.zeros((n_layers * n_experts, n_experts), np.int64)
    for apart in distances:
        counts += contingency_table(numbered[:-apart], experts[apart:], counts.shape)
    return counts.reshape(n_layers, n_experts, n_experts)


def _successors(
    tokens: Grouped, stretch: Stretch
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each layer but the last (expert, next layer's expert): all, and of the same rank."""
    slabs = list(tokens.chosen_by(stretch))
    found = []
    for number, slab in enumerate(slabs):
        found += _joint(slab, slice(None, -1), slab, slice(1, None))
        if number + 1 < len(slabs):
            found += _joint(slab, slice(-1, None), slabs[number + 1], slice(None, 1))
    return found


def _joint(
    one: Slab, of_one: slice, two: Slab, of_two: slice
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of each pair of layers (expert, other layer's expert): all, and of the same rank."""
    n_layers = len(one.layers[of_one])
    shape = n_layers * one.n_experts, two.n_experts
    numbered, experts = _numbered(one, of_one), _by_rank(two, of_two)
    k = min(one.top_k, two.top_k)
    at_rank = contingency_table(numbered[:k], experts[:k], shape)
    both = at_rank.copy()
    # every other pair of ranks is r and r + apart for one distance, up or down
    for apart in range(1, two.top_k):
        n = min(one.top_k, two.top_k - apart)
        both += contingency_table(numbered[:n], experts[apart : apart + n], shape)
    for apart in range(1, one.top_k):
        n = min(two.top_k, one.top_k - apart)
        both += contingency_table(numbered[apart : apart + n], experts[:n], shape)
    of_pairs = n_layers, one.n_experts, two.n_experts
    return list(zip(both.reshape(of_pairs), at_rank.reshape(of_pairs), strict=True))


def _ranks(tokens: Grouped, stretch: Stretch) -> list[NDArray[np.int64]]:
    """For each slab (layer, rank, expert): how often the expert is chosen at the rank."""
    import numpy as np

    found = []
    for slab in tokens.chosen_by(stretch):
        n_layers, k = len(slab.layers), slab.top_k
        places = np.arange(n_layers * k, dtype=np.int32).reshape(n_layers, 1, k)
        name = f"places of ranks {slab.layers[0].layer}"
        rows = constant(name, slab.experts.shape, np.int32, places)
        table = contingency_table(rows, slab.experts, (n_layers * k, slab.n_experts))
        found.append(table.reshape(n_layers, k, slab.n_experts))
    return found


def _by_rank(slab: Slab, layers: slice = slice(None)) -> NDArray[np.int32]:
    """(rank, layer and token): the experts."""
    import numpy as np

    by_rank = slab.experts[layers].transpose(2, 0, 1)
    experts = scratch("experts by rank", by_rank.shape, np.int32)
    np.copyto(experts, by_rank)
    return experts.reshape(slab.top_k, -1)


def _numbered(slab: Slab, layers: slice = slice(None)) -> NDArray[np.int32]:
    """(rank, layer and token): the experts, numbered through the layers."""
    import numpy as np

    by_rank = slab.experts[layers].transpose(2, 0, 1)
    first = np.arange(by_rank.shape[1], dtype=np.int32) * np.int32(slab.n_experts)
    numbered = scratch("numbered experts by rank", by_rank.shape, np.int32)
    np.add(by_rank, first[:, None], out=numbered)
    return numbered.reshape(slab.top_k, -1)
