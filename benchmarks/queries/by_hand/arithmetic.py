"""From counts to the columns of a query: what by hand is done once many rows have become few.

Both hand-written versions end here. ``counts`` is (layer, expert), ``n_tokens`` the number of
tokens in the selection.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = dict[str, Array]


def expert_frequency(counts: Array, n_tokens: int, top_k: int) -> Columns:
    """The columns of ``expert-frequency``."""
    n_layers, n_experts = counts.shape
    n = counts.ravel()
    return {
        "layer": np.repeat(np.arange(n_layers), n_experts),
        "expert": np.tile(np.arange(n_experts), n_layers),
        "n_decisions": n,
        "n_tokens": np.full(n.size, n_tokens),
        "frequency": n / n_tokens,
        "share": n / (top_k * n_tokens),
        "uniform": np.full(n.size, top_k / n_experts),
    }


def concentration(counts: Array, top_k: int) -> Columns:
    """The columns of ``concentration``."""
    n_layers, n_experts = counts.shape
    tops = [1] + [top_k << at for at in range(n_experts) if top_k << at < n_experts] + [n_experts]
    tops = sorted(set(tops))
    taken = np.sort(counts, axis=1)[:, ::-1].cumsum(axis=1)
    total = taken[:, -1:]
    of_tops = taken[:, np.array(tops) - 1]
    columns = {
        "layer": np.repeat(np.arange(n_layers), len(tops)),
        "n_top": np.tile(tops, n_layers),
        "n_decisions": of_tops.ravel(),
        "n_decisions_total": np.repeat(total[:, 0], len(tops)),
        "share": (of_tops / total).ravel(),
    }
    for percent in (50, 90, 99):
        enough = (100 * taken >= percent * total).argmax(axis=1) + 1
        columns[f"experts_{percent}"] = np.repeat(enough, len(tops))
    return columns


def load_balance(counts: Array, n_tokens: int, probability: Array) -> Columns:
    """The columns of ``load-balance``; ``probability`` (layer, expert) is summed over tokens."""
    n_layers, n_experts = counts.shape
    total = counts.sum(axis=1)
    shares = counts / total[:, None]
    entropies = entropy(counts)
    places = 2 * np.arange(1, n_experts + 1) - n_experts - 1
    used = (counts > 0).sum(axis=1)
    return {
        "layer": np.arange(n_layers),
        "n_experts": np.full(n_layers, n_experts),
        "n_decisions": total,
        "n_used": used,
        "n_dead": n_experts - used,
        "normalized_entropy": entropies / np.log2(n_experts),
        "effective_experts": 2**entropies,
        "gini": (np.sort(shares, axis=1) * places).sum(axis=1) / n_experts,
        "cv": counts.std(axis=1) / counts.mean(axis=1),
        "max_over_mean": shares.max(axis=1) * n_experts,
        "switch_loss": n_experts * (shares * probability / n_tokens).sum(axis=1),
    }


def entropy(counts: Array) -> Array:
    """Entropy, in bits, over the last axis."""
    shares = counts / counts.sum(axis=-1, keepdims=True)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))


def mutual_information(joint: Array) -> Array:
    """Information, in bits, of the last two axes about each other."""
    apart = entropy(joint.sum(axis=-1)) + entropy(joint.sum(axis=-2))
    return np.asarray(apart - entropy(joint.reshape(*joint.shape[:-2], -1)))


def routing_by_class(
    values: Sequence[str],
    sizes: Array,
    classes: Array,
    weights: Array,
    counts: Array,
    n_tokens: int,
) -> Columns:
    """The columns of ``routing-by-class``.

    ``values`` are those of the label, sorted, ``sizes`` (value,) their tokens; ``classes`` and
    ``weights`` (layer, value, expert) count their decisions and add up the weights of these.
    """
    n_layers, n_values, n_experts = classes.shape
    frequency = np.broadcast_to((counts / n_tokens)[:, None], classes.shape)
    rate = classes / sizes[:, None]
    unused = np.full(classes.shape, np.nan)
    columns = {
        "n_decisions": classes,
        "n_tokens": np.broadcast_to(sizes[:, None], classes.shape),
        "rate": rate,
        "share": classes / classes.sum(axis=2, keepdims=True),
        "weight_share": weights / weights.sum(axis=2, keepdims=True),
        "frequency": frequency,
        "lift": np.divide(rate, frequency, out=unused, where=frequency > 0),
    }
    return {
        "layer": np.repeat(np.arange(n_layers), n_values * n_experts),
        "value": np.tile(np.repeat(np.array(values, object), n_experts), n_layers),
        "expert": np.tile(np.arange(n_experts), n_layers * n_values),
        **{name: cells.ravel() for name, cells in columns.items()},
    }


def expert_specialization(
    values: Sequence[str], classes: Array, min_decisions: int = 20
) -> Columns:
    """The columns of ``expert-specialization``; ``classes`` is (layer, value, expert)."""
    total = classes.sum(axis=1)
    top = classes.argmax(axis=1)
    n_top = classes.max(axis=1)
    of_value = classes.sum(axis=2) / classes.sum(axis=(1, 2))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        exclusivity = n_top / total
        conditional = entropy(np.moveaxis(classes, 1, 2))
        pmi = np.log2(exclusivity / np.take_along_axis(of_value, top, axis=1))
    layer, expert = np.nonzero((total >= min_decisions) & (total > 0))
    order = np.lexsort((expert, -exclusivity[layer, expert], layer))
    at = layer[order], expert[order]
    return {
        "layer": at[0],
        "expert": at[1],
        "n_decisions": total[at],
        "n_values": (classes > 0).sum(axis=1)[at],
        "top_value": np.array(values, object)[top[at]],
        "n_top": n_top[at],
        "exclusivity": exclusivity[at],
        "conditional_entropy": conditional[at],
        "normalized_entropy": conditional[at] / np.log2(len(values)),
        "pmi": pmi[at],
    }


def overlap(counts_a: Array, counts_b: Array, n_a: int, n_b: int, m: int) -> Columns:
    """The columns of ``overlap`` of two groups, of ``n_a`` and ``n_b`` tokens."""
    n_layers, _ = counts_a.shape
    top_a, top_b = _most_used(counts_a, m), _most_used(counts_b, m)
    shared, either = (top_a & top_b).sum(axis=1), (top_a | top_b).sum(axis=1)
    a = counts_a / counts_a.sum(axis=1, keepdims=True)
    b = counts_b / counts_b.sum(axis=1, keepdims=True)
    divergence = entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2
    return {
        "layer": np.arange(n_layers),
        "n_tokens_a": np.full(n_layers, n_a),
        "n_tokens_b": np.full(n_layers, n_b),
        "m": np.full(n_layers, m),
        "n_shared": shared,
        "jaccard": shared / either,
        "expected_jaccard": _expected_jaccard(top_a, top_b),
        "overlap_coefficient": shared / np.minimum(top_a.sum(axis=1), top_b.sum(axis=1)),
        "weighted_jaccard": np.minimum(a, b).sum(axis=1) / np.maximum(a, b).sum(axis=1),
        "jensen_shannon": np.maximum(divergence, 0),
    }


def _expected_jaccard(top_a: Array, top_b: Array) -> Array:
    """(layer,): of two random sets of the same sizes."""
    from scipy.stats import hypergeom

    n_a, n_b = (top.sum(axis=1)[:, None] for top in (top_a, top_b))
    shared = np.arange(int(np.minimum(n_a, n_b).max()) + 1)
    chances = hypergeom.pmf(shared, top_a.shape[1], n_a, n_b)
    found: Array = (chances * shared / np.maximum(n_a + n_b - shared, 1)).sum(axis=1)
    return found


def _most_used(counts: Array, m: int) -> Array:
    """(layer, expert): whether it is among the m most used; of equals the smaller index."""
    order = np.argsort(-counts, axis=1, kind="stable")[:, :m]
    among = np.zeros(counts.shape, bool)
    np.put_along_axis(among, order, values=True, axis=1)
    return np.asarray(among & (counts > 0))


def co_activation(pairs: Array, counts: Array, n_tokens: int, top_k: int) -> Columns:
    """The columns of ``co-activation``; ``pairs`` (layer, a, b) has a pair where a < b."""
    at, common = _pairs(pairs, counts, n_tokens, "n_both")
    expected = pair_chances(counts, n_tokens, top_k)[at]
    n_a, n_b = common["n_a"].astype(float), common["n_b"]
    more = {"independent": n_a * n_b / n_tokens, "expected": expected}
    return {**common, **more, "lift": common["n_both"] / expected}


def co_activation_adjacent(pairs: Array, counts: Array, n_tokens: int, top_k: int) -> Columns:
    """The columns of ``co-activation-adjacent``; ``pairs`` as in :func:`co_activation`."""
    at, common = _pairs(pairs, counts, n_tokens, "n_adjacent")
    expected = 2 / top_k * pair_chances(counts, n_tokens, top_k)[at]
    n_a, n_b = common["n_a"].astype(float), common["n_b"]
    more = {"independent": 2 * n_a * n_b / (top_k * n_tokens), "expected": expected}
    return {**common, **more, "lift": common["n_adjacent"] / expected}


def _pairs(
    pairs: Array, counts: Array, n_tokens: int, name: str
) -> tuple[tuple[Array, ...], Columns]:
    layer, a, b = at = np.nonzero(pairs)
    n, n_a, n_b = pairs[at], counts[layer, a], counts[layer, b]
    return at, {
        "layer": layer,
        "expert_a": a,
        "expert_b": b,
        name: n,
        "n_a": n_a,
        "n_b": n_b,
        "n_tokens": np.full(n.size, n_tokens),
        "p_b_given_a": n / n_a,
        "p_a_given_b": n / n_b,
        "jaccard": n / (n_a + n_b - n),
    }


def pair_chances(counts: Array, n_tokens: int, top_k: int) -> Array:
    """(layer, a, b): tokens that choose both by chance, by conditional Poisson sampling."""
    n_layers, n_experts = counts.shape
    chances = np.zeros((n_layers, n_experts, n_experts))
    for layer, n in enumerate(counts):
        always = n == n_tokens
        drawn = (n > 0) & ~always
        n_drawn = top_k - always.sum()
        rate = n / n_tokens
        spread = (rate * (1 - rate)).sum()
        affinity = np.exp(-np.outer(1 - rate, 1 - rate) / spread) if n_drawn != 2 else np.ones(1)
        affinity = affinity * np.outer(drawn, drawn) * (1 - np.eye(n_experts))
        partners = (n_drawn - 1) * n
        scale = prior = rate
        for _ in range(6):
            total = affinity @ scale
            prior, scale = scale, np.divide(partners, total, out=np.zeros_like(total), where=drawn)
        expected = affinity * (np.outer(scale, prior) + np.outer(prior, scale)) / 2
        expected[always] = n
        expected[:, always] = n[:, None]
        expected[np.ix_(always, always)] = n_tokens
        chances[layer] = expected
    return chances


def cross_layer(pairs: Array, counts: Array, n_tokens: int) -> Columns:
    """The columns of ``cross-layer``; ``pairs`` is (layer but the last, expert, next expert)."""
    layer, expert, following = at = np.nonzero(pairs)
    n, n_expert = pairs[at], counts[layer, expert]
    expected = n_expert.astype(float) * counts[layer + 1, following] / n_tokens
    return {
        "layer": layer,
        "next_layer": layer + 1,
        "expert": expert,
        "next_expert": following,
        "n_both": n,
        "n_expert": n_expert,
        "n_tokens": np.full(n.size, n_tokens),
        "p_next_given": n / n_expert,
        "expected": expected,
        "lift": n / expected,
        "information": np.maximum(mutual_information(pairs), 0)[layer],
    }


def active_experts(counts: Array, active: Array, n_of_example: Array, top_k: int) -> Columns:
    """The columns of ``active-experts``.

    ``active`` (layer, expert) are the examples that each expert is active in, ``n_of_example``
    (example,) the tokens in scope of each.
    """
    n_layers, n_experts = counts.shape
    n_examples = len(n_of_example)
    most, total = active.max(axis=1), counts.sum(axis=1)
    columns = {
        "layer": np.arange(n_layers),
        "n_examples": np.full(n_layers, n_examples),
        "n_experts": np.full(n_layers, n_experts),
        "experts_ever": (active > 0).sum(axis=1),
        "n_most": most,
        "most": most / n_examples,
        "uniform": np.full(n_layers, (1 - (1 - top_k / n_experts) ** n_of_example).mean()),
        "n_decisions": total,
    }
    for percent in (50, 90):
        among = (100 * active >= percent * n_examples) & (active > 0)
        taken = (counts * among).sum(axis=1)
        columns[f"experts_{percent}"] = among.sum(axis=1)
        columns[f"n_decisions_{percent}"] = taken
        columns[f"share_{percent}"] = taken / total
    return columns


def saturation(
    shared: Array, first: Array, n_tokens: int, n_unmatched: int, experts: int, top_k: int
) -> Columns:
    """The columns of ``saturation``; ``shared`` and ``first`` (layer,) count experts and tokens."""
    n_layers = len(shared)
    return {
        "layer": np.arange(n_layers),
        "top_k": np.full(n_layers, top_k),
        "n_tokens": np.full(n_layers, n_tokens),
        "n_unmatched": np.full(n_layers, n_unmatched),
        "n_shared": shared,
        "saturation": shared / (top_k * n_tokens),
        "first_saturation": first / n_tokens,
        "uniform": np.full(n_layers, top_k / experts),
    }


def permuted_units(codes: Array, n: int, blocks: Array | None, seed: int = 0) -> Iterator[Array]:
    """Yield ``n`` times the labels of the units, permuted: within blocks where there are some.

    The draws are those of ``label-information``, whose every layer begins from the seed anew.
    """
    rng = np.random.default_rng(seed)
    for _ in range(n):
        if blocks is None:
            yield rng.permutation(codes)
        else:
            yield codes[np.argsort(blocks + 0.5 * rng.random(len(codes)))]


def label_information(
    joint: Array, null: Sequence[Array], n_examples: int, permuted: str
) -> Columns:
    """The columns of ``label-information``; ``joint`` is (layer, value, expert).

    ``null`` is (permutation, layer): the information that permuted labels have.
    """
    n_layers, n_values, _ = joint.shape
    information, labels = mutual_information(joint), entropy(joint.sum(axis=2))
    drawn = np.maximum(np.array(null), 0)
    return {
        "layer": np.arange(n_layers),
        "n_decisions": joint.sum(axis=(1, 2)),
        "n_examples": np.full(n_layers, n_examples),
        "n_clusters": np.full(n_layers, n_examples),
        "n_values": np.full(n_layers, n_values),
        "information": information,
        "label_entropy": labels,
        "normalized": information / labels,
        "permuted": np.full(n_layers, permuted, object),
        "null_mean": drawn.mean(axis=0),
        "null_highest": drawn.max(axis=0),
        "p_value": (1 + (drawn >= information - 1e-9).sum(axis=0)) / (1 + len(drawn)),
    }


def contexts(texts: Sequence[str], tokens: Array, starts: Array, ends: Array) -> Array:
    """Each of ``tokens`` between the eight before and the four after it, within its example.

    ``starts`` and ``ends`` are those of the examples of ``tokens``.
    """
    return np.array(
        [
            "".join(texts[max(start, at - 8) : at])
            + f"[[{texts[at]}]]"
            + "".join(texts[at + 1 : min(end, at + 5)])
            for at, start, end in zip(tokens.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ],
        object,
    )
