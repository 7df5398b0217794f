"""Which values of a label two experts of drawn clusters take together."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer, over
from moedb.queries.analyses.uncertainty.resampling.counts.of_pairs import pairs_of_a_layer
from moedb.queries.counting.decisions.stretches import Slab, each_stretch
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.counting.decisions.stretches import Stretch
    from moedb.queries.questions.parameters import Value

_LABELLED = f"""
select distinct labels.token_idx, labels.example_id, labels.value
from labels
where
    labels.run_id = cast($run as varchar)
    and labels.key = cast($key as varchar)
    and labels.example_id in {SELECTED_EXAMPLES}
order by labels.token_idx, labels.value
"""  # noqa: S608

Counts = tuple["NDArray[np.int64]", Mapping[int, "NDArray[np.int32]"]]


def pair_specialization(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count for each value of a label the pairs of experts that tokens of clusters choose."""
    import numpy as np

    names = side.class_values
    number = {name: at for at, name in enumerate(names)}
    labelled, clusters = side.added(_LABELLED, key=values["key"])
    of_value = np.array([number[value] for value in labelled["value"]], np.int64)
    layers = side.layers
    totals = {
        each.layer: np.zeros((side.n_drawn * len(names), each.n_experts, each.n_experts), np.int32)
        for each in layers
    }
    tokens = np.asarray(labelled["token_idx"]), clusters * len(names) + of_value
    with side.in_order():
        for groups, tables in each_stretch(side.run, partial(_of_stretch, *tokens, totals)):
            for layer, table in tables.items():
                totals[layer][groups] += table
    top_k = {each.layer: each.top_k for each in layers}

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        total = totals[layer]
        shape = side.n_drawn, len(names), *total.shape[1:]
        # the expert of the smaller rank need not be that of the smaller index
        counts = (total + total.transpose(0, 2, 1)).reshape(shape)
        a, b = (given[f"expert_{of}"].to_numpy().astype(np.int64) for of in "ab")
        of_pairs = counts[:, :, a, b].reshape(len(counts), -1).astype(np.float64)
        # every token that chose an expert chose top_k - 1 others
        own = counts.sum(axis=3) / (top_k[layer] - 1)

        def ask(weights: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
            both = (weights @ of_pairs).reshape(len(weights), len(names), -1)
            each = (weights @ own.reshape(len(own), -1)).reshape(len(weights), *own.shape[1:])
            return _columns(both, each, a, b)

        return Answer(6 * len(names) * (len(a) + shape[2]), ask)

    return at_layer


def _columns(
    both: "NDArray[np.float64]",
    each: "NDArray[np.float64]",
    a: "NDArray[np.int64]",
    b: "NDArray[np.int64]",
) -> "dict[str, NDArray[np.float64]]":
    """The columns of the query, each (draw, pair).

    Parameters
    ----------
    both, each
        (draw, value, pair) and (draw, value, expert): tokens.
    a, b
        (pair,): its experts.
    """
    import numpy as np

    n_both = both.sum(axis=1)
    shares = over(both, n_both[:, None])
    top = both.argmax(axis=1)[:, None]
    exclusivity = _at(shares, top)
    of_class = each.sum(axis=2, keepdims=True)
    class_shares = over(of_class, of_class.sum(axis=1, keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy = np.where(shares > 0, -shares * np.log2(shares), 0).sum(axis=1)
        n_values = (of_class > 0).sum(axis=1)
        normalized = np.where(n_values > 1, entropy / np.log2(n_values), np.nan)
        pmi = np.log2(exclusivity / _at(np.broadcast_to(class_shares, both.shape), top))
        products = np.where(of_class > 0, each[:, :, a] * each[:, :, b] / class_shares, 0)
    own = over(each.max(axis=1), each.sum(axis=1))
    alone = {"exclusivity_a": own[:, a], "exclusivity_b": own[:, b]}
    found = {
        "exclusivity": exclusivity,
        "conditional_entropy": entropy,
        "normalized_entropy": normalized,
        "pmi": pmi,
        **alone,
        "gain": exclusivity - np.maximum(*alone.values()),
        "independent": over(_at(products, top), products.sum(axis=1)),
    }
    # a pair that no token of a draw chose has no row
    return {name: np.where(n_both > 0, of, np.nan) for name, of in found.items()} | {
        "n_both": n_both
    }


def _at(values: "NDArray[np.float64]", top: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """(draw, pair): what is there of one value each."""
    import numpy as np

    return np.take_along_axis(values, top, axis=1)[:, 0]


def _of_stretch(
    token_idx: "NDArray[np.int64]",
    group: "NDArray[np.int64]",
    wanted: Mapping[int, object],
    stretch: "Stretch",
) -> Counts:
    """The groups that a stretch has tokens of, and for each layer their tables."""
    import numpy as np

    bounds = stretch.first_token, stretch.first_token + stretch.n_tokens
    here = slice(*np.searchsorted(token_idx, bounds))
    places = token_idx[here] - stretch.first_token
    own, of_token = np.unique(group[here], return_inverse=True)
    found = {}
    for slab in stretch.slabs:
        for at, layer in enumerate(slab.layers):
            if layer.layer in wanted:
                one = Slab([layer], {"expert": slab.experts[at : at + 1]}).of(places)
                tables = pairs_of_a_layer(None, of_token.astype(np.int32), len(own), [one])
                found[layer.layer] = tables[0][:, 0]
    return own, found
