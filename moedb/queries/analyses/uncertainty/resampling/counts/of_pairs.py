"""What groups of examples add to the views over pairs of decisions of a token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import ClusterCounts
from moedb.queries.counting.decisions.layers import layers_of
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.experts import expected_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.layers import Layer
    from moedb.queries.counting.decisions.rows import Rows
    from moedb.queries.counting.decisions.stretches import Slab, Stretch
    from moedb.store.reading.snapshot import RunSnapshot

MOST_GROUPS = 200
"""Groups that pairs are counted for at most."""

FEWEST_GROUPS = 20
"""And at least, unless there are fewer clusters."""

_MOST_CELLS = 1 << 27
"""Numbers that are held at once."""

_MOST_CHANCES = 1 << 17
"""Chances of pairs that are worked out together: they stay in the cache."""

Tables = list["NDArray[np.int32]"]
"""For each layer, or two successive ones, (group, table, row, column): counts."""


def groups_for(layers: "Sequence[Layer]", n_values: int = 1) -> int:
    """How many groups pairs can be counted for in memory, for each value of a label."""
    cells = n_values * sum(layer.n_experts**2 for layer in layers)
    return min(MOST_GROUPS, _MOST_CELLS // max(cells, 1))


def count_pairs(
    run: "RunSnapshot", view: str, of_token: "NDArray[np.int32]", n_groups: int
) -> dict[int | None, ClusterCounts]:
    """Count pairs of decisions by groups of tokens.

    Parameters
    ----------
    run
        The run.
    view
        One of :data:`OF_PAIRS`.
    of_token
        (token,): the group of each token of the run by its number; -1 for one that is left out.
    n_groups
        How many groups there are.

    Returns
    -------
    dict
        By the layer.

    Raises
    ------
    UnorderedError
        If its decisions are not in order, or not on this machine.
    """
    import numpy as np

    layers = layers_of(run)
    make, shapes_of, rows_of = OF_PAIRS[view]
    totals = [np.zeros((n_groups, *shape), np.int32) for shape in shapes_of(layers)]
    for groups, tables in each_stretch(run, partial(_of_stretch, of_token, make)):
        for total, table in zip(totals, tables, strict=True):
            total[groups] += table
    found: dict[int | None, ClusterCounts] = {}
    for layer, total in zip(layers, totals, strict=False):
        found[layer.layer] = rows_of(layers, layer, total)
    return found


def chances_of_pairs(
    n: "NDArray[np.float64]", top_k: int, a: "NDArray[np.int64]", b: "NDArray[np.int64]"
) -> "NDArray[np.float64]":
    """Work out how often pairs of experts are chosen by chance, as ``pair_chances`` does.

    Parameters
    ----------
    n
        (draw, expert): how often each expert of a layer is chosen.
    top_k
        How many a token chooses.
    a, b
        (pair,): the experts of each pair.

    Returns
    -------
    (draw, pair)
    """
    import numpy as np

    parts = np.array_split(n, max(1, n.size * n.shape[1] // _MOST_CHANCES))
    found = [expected_pairs(some, some.sum(axis=-1) // top_k, top_k, a, b) for some in parts]
    return np.concatenate(found)


def _of_stretch(
    of_token: "NDArray[np.int32]",
    make: "Callable[[NDArray[np.int32], int, Sequence[Slab]], Tables]",
    stretch: "Stretch",
) -> "tuple[NDArray[np.int32], Tables]":
    """The groups that a stretch has tokens of, and their tables."""
    import numpy as np

    first = stretch.first_token
    groups = of_token[first : first + stretch.n_tokens]
    (places,) = np.nonzero(groups >= 0)
    # few of all groups: their tables are small
    own, group = np.unique(groups[places], return_inverse=True)
    slabs = [slab.of(places) for slab in stretch.slabs]
    return own, make(group.astype(np.int32), len(own), slabs)


def _by_layer(slabs: "Sequence[Slab]") -> "Iterator[tuple[NDArray[np.int32], int]]":
    """For each layer (rank, token) its experts, and how many it has."""
    import numpy as np

    for slab in slabs:
        for experts in slab.experts:
            yield np.ascontiguousarray(experts.T, np.int32), slab.n_experts


def _table(
    group: "NDArray[np.int32]",
    n_groups: int,
    pairs: "Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]",
    shape: tuple[int, int],
) -> "NDArray[np.int32]":
    """(group, row, column): how often, over all pairs of two arrays (token,)."""
    import numpy as np

    total = np.zeros((n_groups * shape[0], shape[1]), np.int32)
    if len(group):
        offset = group * np.int32(shape[0])
        for rows, columns in pairs:
            total += contingency_table(offset + rows, columns, total.shape)
    return total.reshape(n_groups, *shape)


def pairs_of_a_layer(
    apart: int | None, group: "NDArray[np.int32]", n_groups: int, slabs: "Sequence[Slab]"
) -> Tables:
    """For each layer (group, 1, expert, expert): those of smaller and of larger rank.

    Parameters
    ----------
    apart
        How far apart in rank; None for any two.
    group
        (token,): the group of each.
    n_groups
        How many there are.
    slabs
        What the tokens chose.
    """
    found = []
    for ranks, n_experts in _by_layer(slabs):
        k = len(ranks)
        pairs = [
            (ranks[one], ranks[two])
            for one in range(k)
            for two in range(one + 1, k)
            if apart is None or two - one == apart
        ]
        found.append(_table(group, n_groups, pairs, (n_experts, n_experts))[:, None])
    return found


def _successors(group: "NDArray[np.int32]", n_groups: int, slabs: "Sequence[Slab]") -> Tables:
    """Of each two successive layers two tables: all pairs, and those of the same rank."""
    import numpy as np

    found = []
    for (ranks, n_experts), (next_ranks, n_next) in pairwise(_by_layer(slabs)):
        shape = n_experts, n_next
        k = min(len(ranks), len(next_ranks))
        aligned = [(ranks[at], next_ranks[at]) for at in range(k)]
        others = [
            (ranks[one], next_ranks[two])
            for one in range(len(ranks))
            for two in range(len(next_ranks))
            if one != two
        ]
        at_rank = _table(group, n_groups, aligned, shape)
        both = at_rank + _table(group, n_groups, others, shape)
        found.append(np.stack([both, at_rank], axis=1))
    return found


def _ranks(group: "NDArray[np.int32]", n_groups: int, slabs: "Sequence[Slab]") -> Tables:
    """(group, 1, rank, expert)."""
    import numpy as np

    found = []
    for ranks, n_experts in _by_layer(slabs):
        places = [(np.full_like(of_rank, at), of_rank) for at, of_rank in enumerate(ranks)]
        found.append(_table(group, n_groups, places, (len(ranks), n_experts))[:, None])
    return found


def _pair_rows(
    name: str, layers: "Sequence[Layer]", layer: "Layer", total: "NDArray[np.int32]"
) -> ClusterCounts:
    import numpy as np

    # the expert of the smaller rank need not be that of the smaller index
    counts = total[:, 0] + total[:, 0].transpose(0, 2, 1)
    a, b = np.triu(counts.sum(axis=0), 1).nonzero()
    cells = {"layer": np.full(len(a), layer.layer), "expert_a": a, "expert_b": b}
    return _of_cells(cells, {name: counts[:, a, b]})


def _successor_rows(
    layers: "Sequence[Layer]", layer: "Layer", total: "NDArray[np.int32]"
) -> ClusterCounts:
    import numpy as np

    following = layers[layers.index(layer) + 1].layer
    expert, next_expert = total[:, 0].sum(axis=0).nonzero()
    cells = {
        "layer": np.full(len(expert), layer.layer),
        "next_layer": np.full(len(expert), following),
        "expert": expert,
        "next_expert": next_expert,
    }
    both, aligned = (total[:, at][:, expert, next_expert] for at in (0, 1))
    return _of_cells(cells, {"n_both": both, "n_aligned": aligned})


def _rank_rows(
    layers: "Sequence[Layer]", layer: "Layer", total: "NDArray[np.int32]"
) -> ClusterCounts:
    import numpy as np

    rank, expert = total[:, 0].sum(axis=0).nonzero()
    cells = {"layer": np.full(len(rank), layer.layer), "rank": rank, "expert": expert}
    return _of_cells(cells, {"n_decisions": total[:, 0][:, rank, expert]})


def _of_cells(cells: "Rows", counts: "Mapping[str, NDArray[np.int32]]") -> ClusterCounts:
    import numpy as np
    from scipy.sparse import csr_array

    added = {name: csr_array(of.T.astype(np.float64)) for name, of in counts.items()}
    return ClusterCounts(cells, added)


def _layer_shapes(layers: "Sequence[Layer]") -> list[tuple[int, ...]]:
    return [(1, layer.n_experts, layer.n_experts) for layer in layers]


def _successor_shapes(layers: "Sequence[Layer]") -> list[tuple[int, ...]]:
    return [(2, one.n_experts, two.n_experts) for one, two in pairwise(layers)]


def _rank_shapes(layers: "Sequence[Layer]") -> list[tuple[int, ...]]:
    return [(1, layer.top_k, layer.n_experts) for layer in layers]


OF_PAIRS: Mapping[
    str,
    tuple[
        "Callable[[NDArray[np.int32], int, Sequence[Slab]], Tables]",
        "Callable[[Sequence[Layer]], list[tuple[int, ...]]]",
        "Callable[[Sequence[Layer], Layer, NDArray[np.int32]], ClusterCounts]",
    ],
] = MappingProxyType(
    {
        "adjacent_pairs": (
            partial(pairs_of_a_layer, 1),
            _layer_shapes,
            partial(_pair_rows, "n_adjacent"),
        ),
        "expert_pairs": (
            partial(pairs_of_a_layer, None),
            _layer_shapes,
            partial(_pair_rows, "n_both"),
        ),
        "layer_pairs": (_successors, _successor_shapes, _successor_rows),
        "rank_usage": (_ranks, _rank_shapes, _rank_rows),
    }
)
"""How a view is counted: the tables of a stretch, their shapes, and the rows of a layer."""
