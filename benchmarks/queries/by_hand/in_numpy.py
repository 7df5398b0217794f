"""The queries as one would write them in numpy, over the same Parquet files.

Every function takes the files of a run, reads the columns that it needs, unit by unit where that is
enough, and returns the columns of the query of its name.
"""

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq

from benchmarks.queries.by_hand import arithmetic
from benchmarks.queries.by_hand.arithmetic import Array, Columns
from benchmarks.queries.by_hand.numpy_reading import (
    Labels,
    Selection,
    example_labels,
    labels_of,
    read_columns,
    read_experts,
    read_selection,
    read_token_ids,
    read_units,
)
from benchmarks.queries.by_hand.run_files import RunFiles


def _of_layers(experts: Array, n_experts: int) -> Array:
    """The experts numbered through all layers."""
    return np.asarray(experts + n_experts * np.arange(len(experts))[:, None, None])


def _counts(run: RunFiles, kept: Array | None) -> Array:
    """(layer, expert): decisions."""
    n_layers, n_experts = run.shape.layers, run.shape.experts
    counts = np.zeros(n_layers * n_experts, np.int64)
    for _, (experts,) in read_units(run, "routing", "expert", kept=kept):
        counts += np.bincount(_of_layers(experts, n_experts).ravel(), minlength=counts.size)
    return counts.reshape(n_layers, n_experts)


def _counts_of(experts: Array, n_experts: int) -> Array:
    """(layer, expert): decisions of all tokens."""
    return np.array([np.bincount(layer.ravel(), minlength=n_experts) for layer in experts])


def expert_frequency(run: RunFiles) -> Columns:
    chosen = read_selection(run)
    return arithmetic.expert_frequency(
        _counts(run, chosen.tokens), chosen.n_tokens, run.shape.top_k
    )


def concentration(run: RunFiles) -> Columns:
    return arithmetic.concentration(_counts(run, read_selection(run).tokens), run.shape.top_k)


def load_balance(run: RunFiles) -> Columns:
    chosen, shape = read_selection(run), run.shape
    mass = np.zeros((shape.layers, shape.experts))
    first = 0
    for path in run.of("router_mass"):
        probability = pq.ParquetFile(path).read(["probability"])["probability"].to_numpy()
        of_examples = probability.reshape(shape.layers, -1, shape.experts)
        kept = chosen.examples[first : first + of_examples.shape[1]]
        first += len(kept)
        mass += of_examples[:, kept].sum(axis=1, dtype=np.float64)
    return arithmetic.load_balance(_counts(run, chosen.tokens), chosen.n_tokens, mass)


def _class_counts(run: RunFiles, labels: Labels) -> Array:
    """(layer, value, expert): decisions."""
    shape, n_values = run.shape, len(labels.values)
    counts = np.zeros(shape.layers * n_values * shape.experts, np.int64)
    for tokens, (experts,) in read_units(run, "routing", "expert"):
        cells = _class_cells(experts, labels.of_token[tokens], n_values, shape.experts)[0]
        counts += np.bincount(cells, minlength=counts.size)
    return counts.reshape(shape.layers, n_values, shape.experts)


def _class_cells(
    experts: Array, codes: Array, n_values: int, n_experts: int
) -> tuple[Array, Array]:
    """Places in (layer, value, expert) of the decisions of labelled tokens, and which those are."""
    labelled = codes >= 0
    rows = np.arange(len(experts))[:, None] * n_values + codes[labelled]
    return (rows[:, :, None] * n_experts + experts[:, labelled]).ravel(), labelled


def routing_by_class(run: RunFiles, key: str, on: str) -> Columns:
    chosen, shape = read_selection(run), run.shape
    labels = labels_of(run, key, on, chosen)
    n_values = len(labels.values)
    classes = np.zeros(shape.layers * n_values * shape.experts, np.int64)
    weights = np.zeros(classes.size)
    counts = np.zeros(shape.layers * shape.experts, np.int64)
    kept = chosen.tokens
    for tokens, (experts, weight) in read_units(run, "routing", "expert", "weight"):
        cells, labelled = _class_cells(experts, labels.of_token[tokens], n_values, shape.experts)
        classes += np.bincount(cells, minlength=classes.size)
        weights += np.bincount(cells, weight[:, labelled].ravel(), minlength=classes.size)
        wanted = experts if kept is None else experts[:, kept[tokens]]
        counts += np.bincount(_of_layers(wanted, shape.experts).ravel(), minlength=counts.size)
    of_classes = (shape.layers, n_values, shape.experts)
    return arithmetic.routing_by_class(
        labels.values,
        labels.sizes,
        classes.reshape(of_classes),
        weights.reshape(of_classes),
        counts.reshape(shape.layers, shape.experts),
        chosen.n_tokens,
    )


def expert_specialization(run: RunFiles, key: str, on: str) -> Columns:
    labels = labels_of(run, key, on, read_selection(run))
    return arithmetic.expert_specialization(labels.values, _class_counts(run, labels))


def overlap(run: RunFiles, key: str, on: str, value_a: str, value_b: str) -> Columns:
    labels = labels_of(run, key, on, read_selection(run))
    counts = _class_counts(run, labels)
    a, b = labels.values.index(value_a), labels.values.index(value_b)
    n_a, n_b = int(labels.sizes[a]), int(labels.sizes[b])
    return arithmetic.overlap(counts[:, a], counts[:, b], n_a, n_b, run.shape.top_k)


def vocabulary_specialization(run: RunFiles, min_count: int = 8) -> Columns:
    kept, n_experts = read_selection(run).tokens, run.shape.experts
    ids = read_token_ids(run, kept)
    n_of_id = np.bincount(ids)
    known = np.flatnonzero(n_of_id >= min_count)
    place = np.full(len(n_of_id), -1)
    place[known] = np.arange(len(known))
    counted = place[ids] >= 0
    rows = place[ids][counted, None] * n_experts
    n_token = n_of_id[known]
    found = []
    for layer, experts in enumerate(read_experts(run, kept)):
        cells = (rows + experts[counted]).ravel()
        of_ids = np.bincount(cells, minlength=len(known) * n_experts).reshape(-1, n_experts)
        largest = of_ids.max(axis=1)
        found.append(
            {
                "layer": layer,
                "n_token_ids": len(known),
                "n_tokens": n_token.sum(),
                "specialization": (largest / n_token).mean(),
                "weighted": largest.sum() / n_token.sum(),
                "baseline": of_ids.sum(axis=0).max() / n_token.sum(),
            }
        )
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def top_tokens(run: RunFiles, min_count: int = 2, n: int = 5) -> Columns:
    chosen, n_experts = read_selection(run), run.shape.experts
    kept = chosen.tokens
    ids = read_token_ids(run, kept)
    numbers = np.arange(chosen.n_of_example.sum()) if kept is None else np.flatnonzero(kept)
    n_of_id = np.bincount(ids)
    parts: dict[str, list[Array]] = {}
    for layer, experts in enumerate(read_experts(run, kept)):
        cells = ids[:, None] * n_experts + experts
        counts = np.bincount(cells.ravel(), minlength=len(n_of_id) * n_experts)
        of_expert = counts.reshape(-1, n_experts).sum(axis=0)
        found = np.flatnonzero(counts)
        found = found[n_of_id[found // n_experts] >= min_count]
        token_id, expert = np.divmod(found, n_experts)
        rate = counts[found] / n_of_id[token_id]
        order = np.lexsort((token_id, -rate, -counts[found], expert))
        starts = np.searchsorted(expert[order], np.arange(n_experts))
        place = np.arange(len(order)) - starts[expert[order]] + 1
        order, place = order[place <= n], place[place <= n]
        found, token_id, expert, rate = (x[order] for x in (found, token_id, expert, rate))
        wanted = np.full(counts.size, -1)
        wanted[found] = np.arange(len(found))
        hits = wanted[cells]
        rows, ranks = np.nonzero(hits >= 0)
        first = np.empty(len(found), np.int64)
        first[hits[rows, ranks][::-1]] = numbers[rows[::-1]]  # of equal places the last is kept
        columns = {
            "layer": np.full(len(found), layer),
            "expert": expert,
            "place": place,
            "token_id": token_id,
            "n_decisions": counts[found],
            "n_token": n_of_id[token_id],
            "rate": rate,
            "lift": rate / (of_expert[expert] / chosen.n_tokens),
            "first": first,
        }
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return with_texts(run, joined, chosen.n_of_example)


def with_texts(run: RunFiles, columns: Columns, n_of_example: Array) -> Columns:
    """Put the text and the context of each row's token ``first`` in its place."""
    first = columns.pop("first")
    texts = read_columns(run, "tokens", "token")["token"].to_pylist()
    ends = n_of_example.cumsum()
    example = np.searchsorted(ends, first, side="right")
    context = arithmetic.contexts(texts, first, (ends - n_of_example)[example], ends[example])
    token = np.array([texts[at] for at in first.tolist()], object)
    return {**columns, "token": token, "context": context}


def router_confidence(run: RunFiles, key: str | None = None, on: str = "tokens") -> Columns:
    chosen, n_layers = read_selection(run), run.shape.layers
    if key is None:
        kept = chosen.tokens
        n = int(chosen.n_of_example.sum())
        codes = np.zeros(n, np.int64) if kept is None else np.where(kept, 0, -1)
        labels = Labels(["all"], codes)
    else:
        labels = labels_of(run, key, on, chosen)
    n_values = len(labels.values)
    names = ("entropy", "margin", "topk_mass", "logsumexp")
    sums = np.zeros((5, n_layers * n_values))
    for tokens, arrays in read_units(run, "router_stats", *names):
        codes = labels.of_token[tokens]
        labelled = codes >= 0
        cells = (np.arange(n_layers)[:, None] * n_values + codes[labelled]).ravel()
        values = [array[:, labelled].astype(np.float64).ravel() for array in arrays]
        for total, value in zip(sums, (*values, values[0] ** 2), strict=True):
            total += np.bincount(cells, value, minlength=total.size)
    n = np.tile(labels.sizes, n_layers)
    entropy, margin, mass, logsumexp, squares = sums / n
    return {
        "layer": np.repeat(np.arange(n_layers), n_values),
        "value": np.tile(np.array(labels.values, object), n_layers),
        "n_tokens": n,
        "mean_entropy": entropy,
        "mean_margin": margin,
        "mean_topk_mass": mass,
        "sd_entropy": np.sqrt(np.maximum(squares - entropy**2, 0) * (n / (n - 1))),
        "mean_logsumexp": logsumexp,
    }


def _pair_counts(a: Array, b: Array, n_experts: int) -> Array:
    """(expert, other): how often these stand beside each other in ``a`` and ``b``."""
    cells = (a.astype(np.int64) * n_experts + b).ravel()
    return np.bincount(cells, minlength=n_experts**2).reshape(n_experts, n_experts)


def _unordered(pairs: Array) -> Array:
    """Both orders of a pair added up, where a < b."""
    return np.asarray(np.triu(pairs + pairs.T, 1))


def co_activation(run: RunFiles) -> Columns:
    chosen, shape = read_selection(run), run.shape
    experts = read_experts(run, chosen.tokens)
    first, second = np.triu_indices(shape.top_k, 1)
    pairs = [
        _unordered(_pair_counts(layer[:, first], layer[:, second], shape.experts))
        for layer in experts
    ]
    counts = _counts_of(experts, shape.experts)
    return arithmetic.co_activation(np.array(pairs), counts, chosen.n_tokens, shape.top_k)


def co_activation_adjacent(run: RunFiles) -> Columns:
    chosen, shape = read_selection(run), run.shape
    experts = read_experts(run, chosen.tokens)
    pairs = [
        _unordered(_pair_counts(layer[:, :-1], layer[:, 1:], shape.experts)) for layer in experts
    ]
    counts = _counts_of(experts, shape.experts)
    return arithmetic.co_activation_adjacent(np.array(pairs), counts, chosen.n_tokens, shape.top_k)


def cross_layer(run: RunFiles) -> Columns:
    chosen, shape = read_selection(run), run.shape
    experts = read_experts(run, chosen.tokens)
    first, second = (at.ravel() for at in np.indices((shape.top_k, shape.top_k)))
    pairs = [
        _pair_counts(layer[:, first], following[:, second], shape.experts)
        for layer, following in pairwise(experts)
    ]
    counts = _counts_of(experts, shape.experts)
    return arithmetic.cross_layer(np.array(pairs), counts, chosen.n_tokens)


def routing_by_example(run: RunFiles, key: str) -> Columns:
    """Of the last token of each example."""
    chosen = read_selection(run)
    last = chosen.last_tokens
    experts, weights = [], []
    for tokens, (expert, weight) in read_units(run, "routing", "expert", "weight"):
        mine = last[(last >= tokens.start) & (last < tokens.stop)] - tokens.start
        experts.append(expert[:, mine])
        weights.append(weight[:, mine])
    expert = np.concatenate(experts, axis=1)
    weight = np.concatenate(weights, axis=1)
    layer, example, _ = np.indices(expert.shape)
    cells = (np.flatnonzero(chosen.examples)[example.ravel()], layer.ravel(), expert.ravel())
    ones = np.ones(expert.size, np.int64)
    return _by_example(run, key, chosen, *cells, ones, weight.ravel().astype(float), scope=ones)


def routing_by_example_at(run: RunFiles, key: str, layer: int) -> Columns:
    """Of all tokens of each example, at one layer."""
    chosen, shape = read_selection(run), run.shape
    rows = pq.read_table(
        run.of("routing"), columns=["expert", "weight"], filters=[("layer", "=", layer)]
    )
    expert, weight = (rows[name].to_numpy() for name in ("expert", "weight"))
    cells = np.repeat(chosen.of_token, shape.top_k) * shape.experts + expert
    if chosen.tokens is not None:
        kept = np.repeat(chosen.tokens, shape.top_k)
        cells, weight = cells[kept], weight[kept]
    counts, weights = np.bincount(cells), np.bincount(cells, weight)
    found = np.flatnonzero(counts)
    example, expert = np.divmod(found, shape.experts)
    layers = np.full(len(found), layer)
    scope = chosen.n_of_example[example]
    return _by_example(
        run, key, chosen, example, layers, expert, counts[found], weights[found], scope=scope
    )


def _by_example(
    run: RunFiles,
    key: str,
    chosen: Selection,
    example: Array,
    layer: Array,
    expert: Array,
    n: Array,
    weight: Array,
    *,
    scope: Array,
) -> Columns:
    """The columns of ``routing-by-example``, its rows in order; ``scope`` has each row's tokens."""
    values, of_example = example_labels(run, key, chosen)
    code, split = of_example[example], chosen.splits[example]
    if len(set(chosen.splits[chosen.examples])) > 1:
        raise ValueError("one split at a time")
    order = np.lexsort((expert, layer, example, code))
    columns = {
        "split": split,
        "key": np.full(len(order), key, object),
        "value": np.array(values, object)[code],
        "example_id": example,
        "layer": layer,
        "expert": expert,
        "n_experts": np.full(len(order), run.shape.experts),
        "n_decisions": n,
        "n_tokens": scope,
        "share": n / scope,
        "weight": weight / scope,
    }
    return {name: cells[order] for name, cells in columns.items()}


def active_experts(run: RunFiles) -> Columns:
    """Of the last token of each example."""
    chosen, shape = read_selection(run), run.shape
    experts = read_experts(run)[:, chosen.last_tokens]
    counts = _counts_of(experts, shape.experts)
    ones = np.ones(experts.shape[1], np.int64)
    return arithmetic.active_experts(counts, counts, ones, shape.top_k)


def active_experts_in_examples(run: RunFiles) -> Columns:
    """Of all tokens of each example."""
    chosen, shape = read_selection(run), run.shape
    of_examples = _example_counts(run, chosen)[:, chosen.examples]
    counts, active = of_examples.sum(axis=1), (of_examples > 0).sum(axis=1)
    n_of_example = chosen.n_of_example[chosen.examples]
    return arithmetic.active_experts(counts, active, n_of_example, shape.top_k)


def _example_counts(run: RunFiles, chosen: Selection) -> Array:
    """(layer, example, expert): decisions; a unit has whole examples."""
    shape, of_token = run.shape, chosen.of_token
    parts = []
    for tokens, (experts,) in read_units(run, "routing", "expert"):
        example = of_token[tokens] - of_token[tokens.start]
        n = int(example[-1]) + 1
        cells = _class_cells(experts, example, n, shape.experts)[0]
        size = shape.layers * n * shape.experts
        parts.append(np.bincount(cells, minlength=size).reshape(shape.layers, n, shape.experts))
    return np.concatenate(parts, axis=1)


def saturation(run: RunFiles, run_b: RunFiles) -> Columns:
    chosen, shape = read_selection(run), run.shape
    n = min(
        sum(pq.read_metadata(path).num_rows for path in files.of("tokens"))
        for files in (run, run_b)
    )
    kept = chosen.tokens
    same = read_token_ids(run, None)[:n] == read_token_ids(run_b, None)[:n]
    if kept is not None:
        same &= kept[:n]
    experts, others = read_experts(run)[:, :n][:, same], read_experts(run_b)[:, :n][:, same]
    shared = [(a[:, :, None] == b[:, None]).sum() for a, b in zip(experts, others, strict=True)]
    first = (experts[:, :, 0] == others[:, :, 0]).sum(axis=1)
    matched = int(same.sum())
    return arithmetic.saturation(
        np.array(shared), first, matched, chosen.n_tokens - matched, shape.experts, shape.top_k
    )


def label_information(run: RunFiles, key: str, on: str, permutations: int) -> Columns:
    chosen, shape = read_selection(run), run.shape
    if on == "tokens":
        labels = labels_of(run, key, on, chosen)
        return token_information(
            labels.of_token, read_experts(run), chosen.of_token, shape.experts, permutations
        )
    values, of_example = example_labels(run, key, chosen)
    labelled = chosen.examples & (of_example >= 0)
    counts = _example_counts(run, chosen)[:, labelled]
    return example_information(of_example[labelled], counts, len(values), permutations)


def example_information(codes: Array, counts: Array, n_values: int, permutations: int) -> Columns:
    """``label-information`` of a label of examples; ``counts`` is (layer, example, expert)."""

    def joint(labels: Array) -> Array:
        return np.asarray((labels == np.arange(n_values)[:, None]).astype(float) @ counts)

    counts = counts.astype(float)
    null = [
        arithmetic.mutual_information(joint(permuted))
        for permuted in arithmetic.permuted_units(codes, permutations, None)
    ]
    return arithmetic.label_information(joint(codes), null, len(codes), "examples")


def token_information(
    codes: Array, experts: Array, examples: Array, n_experts: int, permutations: int
) -> Columns:
    """``label-information`` of a label of tokens; ``codes`` has -1 for no label."""
    labelled = codes >= 0
    codes, experts, examples = codes[labelled], experts[:, labelled], examples[labelled]
    n_values = int(codes.max()) + 1

    def joint(labels: Array) -> Array:
        rows = labels[:, None] * n_experts
        counts = [
            np.bincount((rows + layer).ravel(), minlength=n_values * n_experts) for layer in experts
        ]
        return np.array(counts).reshape(len(experts), n_values, n_experts)

    blocks = np.unique(examples, return_inverse=True)[1]
    null = [
        arithmetic.mutual_information(joint(permuted))
        for permuted in arithmetic.permuted_units(codes, permutations, blocks)
    ]
    return arithmetic.label_information(
        joint(codes), null, int(blocks.max()) + 1, "tokens within examples"
    )
