"""What the router's distributions are like on average, over all tokens or by a label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from moedb.queries.counting.decisions.layers import layers_of, slabs_of
from moedb.queries.counting.decisions.rows import Part, Rows, joined
from moedb.queries.counting.decisions.stretches import each_stretch
from moedb.queries.counting.decisions.tables import contingency_table
from moedb.queries.counting.decisions.workspace import scratch
from moedb.queries.counting.tokens import (
    EVERYTHING,
    labelled_tokens,
    selected_examples,
    selected_tokens,
)

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.stretches import Stretch
    from moedb.queries.counting.tokens import Grouped
    from moedb.store.reading.snapshot import RunSnapshot

_STATISTICS = ("entropy", "margin", "topk_mass", "logsumexp")
_COLUMNS = (
    "layer",
    "n_tokens",
    "mean_entropy",
    "mean_margin",
    "mean_topk_mass",
    "sd_entropy",
    "mean_logsumexp",
)


def selection_router_stats(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str
) -> Rows:
    """Count as the view ``selection_router_stats`` does, its columns from ``layer`` on."""
    rows = _router_stats(run, selected_tokens(connection, run, selection))
    return {name: rows[name] for name in _COLUMNS}


def expert_mass(connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str) -> Rows:
    """Count as the view ``expert_mass`` does, its columns from ``layer`` on."""
    import numpy as np

    examples = selected_examples(connection, run, selection)
    shapes = [(len(layers), layers[0].n_experts) for layers in slabs_of(run)]
    mass = [np.zeros(shape) for shape in shapes]
    for of_stretch in each_stretch(run, partial(_mass, examples), ("probability",), "router_mass"):
        for place, added in enumerate(of_stretch):
            mass[place] += added
    n_examples = run.n_rows("examples") if selection == EVERYTHING else len(examples.token_idx)
    parts: list[Part] = []
    for layer, of_experts in zip(layers_of(run), chain(*mass), strict=True):
        n_experts = layer.n_experts if n_examples else 0
        experts = np.arange(n_experts)
        parts.append(
            {"layer": layer.layer, "expert": experts, "probability": of_experts[:n_experts]}
        )
    return joined(("layer", "expert", "probability"), parts)


def class_router_stats(
    connection: duckdb.DuckDBPyConnection, run: RunSnapshot, selection: str, key: str
) -> Rows:
    """Count as the view ``class_router_stats`` does, its columns from ``value`` on."""
    return _router_stats(run, labelled_tokens(connection, run, selection, key))


@dataclass(frozen=True)
class _Moments:
    """What is added up of a slab, each (layer, group).

    Attributes
    ----------
    n
        Tokens.
    means
        For each statistic its mean; 0 without tokens.
    squares
        Sum of the squared deviations of the entropy from its mean.
    """

    n: NDArray[np.int64]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: _Moments) -> _Moments:
        """Put the tokens of both together, after Chan et al. 1983, equation 2.1."""
        import numpy as np

        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        apart = other.means - self.means
        squares = self.squares + other.squares + apart[0] ** 2 * self.n * share
        return _Moments(n, self.means + apart * share, squares)


def _router_stats(run: RunSnapshot, tokens: Grouped) -> Rows:
    import numpy as np
    import pyarrow as pa

    shapes = [(len(layers), len(tokens.names)) for layers in slabs_of(run)]
    moments = [
        _Moments(np.zeros(shape, np.int64), np.zeros((len(_STATISTICS), *shape)), np.zeros(shape))
        for shape in shapes
    ]
    added = each_stretch(run, partial(_moments, tokens), _STATISTICS, "router_stats")
    for of_stretch in added:
        moments = [one + other for one, other in zip(moments, of_stretch, strict=True)]
    parts: list[Part] = []
    of_layers = chain(*(zip(m.n, m.means.swapaxes(0, 1), m.squares, strict=True) for m in moments))
    for layer, (n, means, squares) in zip(layers_of(run), of_layers, strict=True):
        (group,) = n.nonzero()
        n, squares = n[group], squares[group]
        entropy, margin, mass, logsumexp = means[:, group]
        parts.append(
            {
                "value": tokens.names[group],
                "layer": layer.layer,
                "n_tokens": n,
                "mean_entropy": entropy,
                "mean_margin": margin,
                "mean_topk_mass": mass,
                "sd_entropy": np.sqrt(squares / np.maximum(n - 1, 1)),
                "mean_logsumexp": logsumexp,
            }
        )
    rows = joined(("value", *_COLUMNS), parts)
    # a single token has no deviation, which is not one of 0
    return rows | {"sd_entropy": pa.array(rows["sd_entropy"], mask=rows["n_tokens"] < 2)}


def _mass(examples: Grouped, stretch: Stretch) -> list[NDArray[np.float64]]:
    """For each slab (layer, expert): the router's probability, summed over examples."""
    import numpy as np

    return [
        slab.columns["probability"].sum(axis=1, dtype=np.float64)
        for slab in examples.chosen_by(stretch)
    ]


def _moments(tokens: Grouped, stretch: Stretch) -> list[_Moments]:
    """The moments of each slab."""
    import numpy as np

    _, groups = tokens.within(stretch.first_token, stretch.n_tokens)
    found = []
    for slab in tokens.chosen_by(stretch):
        values = [slab.columns[name][:, :, 0] for name in _STATISTICS]
        shape = len(slab.layers), len(tokens.names)
        cells = _cells(values[0].shape, groups)
        n = np.tile(np.bincount(groups, minlength=shape[1]), (shape[0], 1))
        means = np.array([_sums(of, cells, shape) for of in values]) / np.maximum(n, 1)
        # the squares of what is left, so that nothing is lost where all are nearly the same
        deviations = scratch("deviations", values[0].shape, np.float64)
        np.subtract(values[0], means[0] if shape[1] == 1 else means[0][cells], out=deviations)
        np.square(deviations, out=deviations)
        found.append(_Moments(n, means, _sums(deviations, cells, shape)))
    return found


def _cells(
    shape: tuple[int, ...], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of each layer and token the number of the layer, and the group of the token."""
    import numpy as np

    layers, of_tokens = scratch("layers", shape, np.int32), scratch("groups", shape, np.int32)
    np.copyto(layers, np.arange(shape[0], dtype=np.int32)[:, None])
    np.copyto(of_tokens, groups.astype(np.int32))
    return layers, of_tokens


def _sums(
    values: NDArray[np.floating[Any]],
    cells: tuple[NDArray[np.int32], NDArray[np.int32]],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """(layer, group): the sums of values (layer, token)."""
    import numpy as np

    if shape[1] == 1:
        # to add to the same number again and again waits for it each time
        added: NDArray[np.float64] = values.sum(axis=1, keepdims=True, dtype=np.float64)
        return added
    return contingency_table(*cells, shape, values)
