"""The named queries once more, in numpy and pandas: what the SQL must give.

Each function takes the tables of a store as data frames, the run and the query's parameters, and
returns the rows of the query of that name, in its order. Counting goes over a matrix of tokens by
experts for each layer, so nothing here resembles the SQL.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from moedb.queries.questions.catalog import catalog

Tables = Mapping[str, pd.DataFrame]

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@dataclass(frozen=True)
class LayerChoices:
    """The decisions of the selected tokens at one layer.

    Attributes
    ----------
    layer, n_experts, top_k
        The layer and its shape.
    ranked
        (T, k), the expert at each rank of each token.
    weights
        (T, E), the weight of each expert, 0 where it was not chosen.
    """

    layer: int
    n_experts: int
    top_k: int
    ranked: np.ndarray
    weights: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """(T, E), 1 where the token chose the expert."""
        matrix = np.zeros((len(self.ranked), self.n_experts))
        np.put_along_axis(matrix, self.ranked, 1.0, axis=1)
        return matrix

    @property
    def counts(self) -> np.ndarray:
        """(E,), tokens that chose each expert."""
        return np.bincount(self.ranked.ravel(), minlength=self.n_experts)


def of_run(tables: Tables, name: str, run_id: str) -> pd.DataFrame:
    """The rows of a table that belong to a run."""
    frame = tables[name]
    return frame[frame["run_id"] == run_id].reset_index(drop=True)


def selected_examples(tables: Tables, run_id: str, split: str | None) -> np.ndarray:
    """The example ids that ``split`` asks for."""
    examples = of_run(tables, "examples", run_id)
    if split is None:
        examples = examples[examples["split"] != "corrupted"]
    elif split != "all":
        examples = examples[examples["split"] == split]
    return np.sort(examples["example_id"].to_numpy())


def selected_tokens(tables: Tables, run_id: str, split: str | None) -> pd.DataFrame:
    """The tokens of those examples, by token_idx."""
    tokens = of_run(tables, "tokens", run_id)
    kept = tokens[tokens["example_id"].isin(selected_examples(tables, run_id, split))]
    return kept.sort_values("token_idx").reset_index(drop=True)


def layers_of(
    tables: Tables, run_id: str, token_idx: np.ndarray, layer: int | None = None
) -> Iterator[LayerChoices]:
    """The decisions of some tokens (sorted), layer by layer."""
    routing = of_run(tables, "routing", run_id)
    shapes = of_run(tables, "moe_layers", run_id).sort_values("layer")
    for shape in shapes.itertuples():
        if layer is not None and shape.layer != layer:
            continue
        rows = routing[(routing["layer"] == shape.layer) & routing["token_idx"].isin(token_idx)]
        rows = rows.sort_values(["token_idx", "rank"])
        ranked = rows["expert"].to_numpy().reshape(len(token_idx), shape.top_k)
        weights = np.zeros((len(token_idx), shape.n_experts))
        np.put_along_axis(
            weights,
            ranked,
            rows["weight"].to_numpy().astype(np.float64).reshape(ranked.shape),
            axis=1,
        )
        yield LayerChoices(
            int(shape.layer), int(shape.n_experts), int(shape.top_k), ranked, weights
        )


def token_values(tables: Tables, run_id: str, key: str) -> dict[str, set[int]]:
    """The tokens that carry each value of a label, whatever the label is on."""
    tokens = of_run(tables, "tokens", run_id)
    by_example: dict[int, list[int]] = {}
    for token, example in zip(tokens["token_idx"], tokens["example_id"], strict=True):
        by_example.setdefault(int(example), []).append(int(token))
    values: dict[str, set[int]] = {}
    for name in ("run_labels", "example_labels", "token_labels"):
        labels = of_run(tables, name, run_id)
        for row in labels[labels["key"] == key].itertuples():
            if name == "run_labels":
                carriers = [int(token) for token in tokens["token_idx"]]
            elif name == "example_labels":
                carriers = by_example.get(int(row.example_id), [])
            else:
                carriers = [int(row.token_idx)]
            values.setdefault(row.value, set()).update(carriers)
    return values


def in_order(values: list[str]) -> list[str]:
    """Values that look like numbers first, by size; then the rest by their text."""
    numbers = [value for value in values if _NUMBER.fullmatch(value)]
    rest = [value for value in values if not _NUMBER.fullmatch(value)]
    return sorted(numbers, key=lambda value: (float(value), value)) + sorted(rest)


def divide(numerator: float, denominator: float) -> float:
    """A quotient, not a number where there is nothing to divide by."""
    return float(numerator) / float(denominator) if denominator else math.nan


def frame(columns: str, rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """A data frame from a list of column names in one string."""
    return pd.DataFrame(rows, columns=columns.split())


def entropy_bits(shares: np.ndarray) -> float:
    """Shannon entropy in bits."""
    positive = shares[shares > 0]
    return float(-(positive * np.log2(positive)).sum())


def gini(counts: np.ndarray) -> float:
    """Half the mean absolute difference of all pairs, over the mean."""
    values = np.asarray(counts, dtype=np.float64)
    differences = np.abs(values[:, None] - values[None, :])
    return divide(differences.mean(), 2 * values.mean())


def jensen_shannon_bits(p: np.ndarray, q: np.ndarray) -> float:
    """Entropy of the mean less the mean of the entropies, in bits."""
    return entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2


def top_set(counts: np.ndarray, m: int) -> set[int]:
    """The m most used experts, of equals the smaller index; only experts that were used."""
    order = sorted(range(len(counts)), key=lambda expert: (-counts[expert], expert))
    return {expert for expert in order[:m] if counts[expert] > 0}


def expert_frequency(tables: Tables, run_id: str, split: str | None = None) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens):
        for expert, count in enumerate(choices.chosen.sum(axis=0).astype(int)):
            rows.append(
                (
                    choices.layer,
                    expert,
                    count,
                    len(tokens),
                    divide(count, len(tokens)),
                    divide(count, choices.top_k * len(tokens)),
                    choices.top_k / choices.n_experts,
                )
            )
    return frame("layer expert n_decisions n_tokens frequency share uniform", rows)


def concentration(tables: Tables, run_id: str, split: str | None = None) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens):
        descending = sorted(choices.counts.tolist(), reverse=True)
        total = sum(descending)

        def smallest(percent: int, counts: list[int] = descending) -> float:
            if not sum(counts):
                return math.nan
            taken = 0
            for n_top, count in enumerate(counts, start=1):
                taken += count
                if 100 * taken >= percent * sum(counts):
                    return n_top
            raise AssertionError

        sizes, size = {1, choices.n_experts}, choices.top_k
        while size <= choices.n_experts:
            sizes.add(size)
            size *= 2
        for n_top in sorted(sizes):
            taken = sum(descending[:n_top])
            rows.append(
                (
                    choices.layer,
                    n_top,
                    taken,
                    total,
                    divide(taken, total),
                    smallest(50),
                    smallest(90),
                    smallest(99),
                )
            )
    return frame(
        "layer n_top n_decisions n_decisions_total share experts_50 experts_90 experts_99", rows
    )


def routing_by_class(
    tables: Tables,
    run_id: str,
    key: str,
    split: str | None = None,
    layer: int | None = None,
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    values = token_values(tables, run_id, key)
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens, layer):
        chosen = choices.chosen
        for value in in_order(list(values)):
            members = np.isin(tokens, list(values[value]))
            if not members.any():
                continue
            counts = chosen[members].sum(axis=0).astype(int)
            weights = choices.weights[members].sum(axis=0)
            for expert in range(choices.n_experts):
                rate = counts[expert] / members.sum()
                frequency = chosen[:, expert].mean()
                rows.append(
                    (
                        choices.layer,
                        value,
                        expert,
                        counts[expert],
                        members.sum(),
                        rate,
                        counts[expert] / counts.sum(),
                        divide(weights[expert], weights.sum()),
                        frequency,
                        divide(rate, frequency),
                    )
                )
    return frame(
        "layer value expert n_decisions n_tokens rate share weight_share frequency lift", rows
    )


def expert_specialization(
    tables: Tables,
    run_id: str,
    key: str,
    split: str | None = None,
    layer: int | None = None,
    min_decisions: int = 20,
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    carriers = token_values(tables, run_id, key)
    values = [v for v in in_order(list(carriers)) if np.isin(tokens, list(carriers[v])).any()]
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens, layer):
        joint = np.array(
            [choices.chosen[np.isin(tokens, list(carriers[v]))].sum(axis=0) for v in values]
        ).reshape(len(values), choices.n_experts)
        of_layer = []
        for expert, counts in enumerate(joint.T):
            if counts.sum() < max(min_decisions, 1):
                continue
            top = int(np.argmax(counts))
            bits = entropy_bits(counts / counts.sum())
            of_layer.append(
                (
                    choices.layer,
                    expert,
                    int(counts.sum()),
                    int((counts > 0).sum()),
                    values[top],
                    int(counts[top]),
                    counts[top] / counts.sum(),
                    bits,
                    divide(bits, math.log2(len(values))),
                    math.log2(counts[top] * joint.sum() / (counts.sum() * joint[top].sum())),
                )
            )
        rows += sorted(of_layer, key=lambda row: (-row[6], row[1]))
    return frame(
        "layer expert n_decisions n_values top_value n_top exclusivity conditional_entropy "
        "normalized_entropy pmi",
        rows,
    )


def co_activation(
    tables: Tables, run_id: str, split: str | None = None, layer: int | None = None
) -> pd.DataFrame:
    return _pairs(tables, run_id, split, layer, "n_both", lambda choices: 1.0, _all_pairs)


def co_activation_adjacent(
    tables: Tables, run_id: str, split: str | None = None, layer: int | None = None
) -> pd.DataFrame:
    return _pairs(
        tables, run_id, split, layer, "n_adjacent", lambda choices: 2 / choices.top_k, _neighbours
    )


def _all_pairs(choices: LayerChoices) -> np.ndarray:
    chosen = choices.chosen
    return chosen.T @ chosen


def _neighbours(choices: LayerChoices) -> np.ndarray:
    together = np.zeros((choices.n_experts, choices.n_experts))
    for rank in range(choices.top_k - 1):
        np.add.at(together, (choices.ranked[:, rank], choices.ranked[:, rank + 1]), 1)
    return together + together.T


def _pairs(
    tables: Tables,
    run_id: str,
    split: str | None,
    layer: int | None,
    count_column: str,
    adjacent_fraction: Callable[[LayerChoices], float],
    count_pairs: Callable[[LayerChoices], np.ndarray],
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens, layer):
        together, counts = count_pairs(choices), choices.counts
        chances = pair_chances(counts, choices.top_k, len(tokens))
        for a in range(choices.n_experts):
            for b in range(a + 1, choices.n_experts):
                both = int(together[a, b])
                if not both:
                    continue
                n_a, n_b = int(counts[a]), int(counts[b])
                independent = n_a * n_b / len(tokens) * adjacent_fraction(choices)
                expected = chances[a, b] * adjacent_fraction(choices)
                rows.append(
                    (
                        choices.layer,
                        a,
                        b,
                        both,
                        n_a,
                        n_b,
                        len(tokens),
                        both / n_a,
                        both / n_b,
                        both / (n_a + n_b - both),
                        independent,
                        expected,
                        both / expected,
                    )
                )
    return frame(
        f"layer expert_a expert_b {count_column} n_a n_b n_tokens p_b_given_a p_a_given_b "
        "jaccard independent expected lift",
        rows,
    )


def pair_chances(counts: np.ndarray, top_k: int, n_tokens: int, steps: int = 6) -> np.ndarray:
    """(E, E), how often two experts are expected together: Sinkhorn's iteration over matrices."""
    always = (counts == n_tokens) & (counts > 0)
    if always.any():
        # they take a place of every token; what is left is drawn from the others
        rest = pair_chances(np.where(always, 0, counts), top_k - always.sum(), n_tokens, steps)
        return np.where(always[:, None] | always, np.minimum(counts[:, None], counts), rest)
    rates = counts / max(n_tokens, 1)
    affinity = np.ones((len(counts), len(counts)))
    if top_k != 2:
        spread = max((rates * (1 - rates)).sum(), 1e-300)
        affinity = np.exp(-np.outer(1 - rates, 1 - rates) / spread)
    affinity[rates == 0] = affinity[:, rates == 0] = 0
    np.fill_diagonal(affinity, 0)
    rows = columns = rates
    for _ in range(steps):
        reached = affinity @ rows
        columns = rows
        rows = np.divide((top_k - 1) * counts, reached, where=reached > 0, out=np.zeros_like(rates))
    return affinity * (np.outer(rows, columns) + np.outer(columns, rows)) / 2


def overlap(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    key: str | None = None,
    value_a: str | None = None,
    value_b: str | None = None,
    run_b: str | None = None,
    m: int | None = None,
) -> pd.DataFrame:
    groups = []
    for run, value in ((run_id, value_a), (run_b or run_id, value_b)):
        tokens = selected_tokens(tables, run, split)["token_idx"].to_numpy()
        if value is not None:
            members = token_values(tables, run, key).get(value, set()) if key else set()
            tokens = tokens[np.isin(tokens, list(members))]
        groups.append((len(tokens), {c.layer: c for c in layers_of(tables, run, tokens)}))
    (n_tokens_a, layers_a), (n_tokens_b, layers_b) = groups
    rows: list[tuple[object, ...]] = []
    for layer in sorted(layers_a.keys() & layers_b.keys()):
        a, b = layers_a[layer], layers_b[layer]
        width = max(a.n_experts, b.n_experts)
        counts_a = np.bincount(a.ranked.ravel(), minlength=width)
        counts_b = np.bincount(b.ranked.ravel(), minlength=width)
        size = a.top_k if m is None else m
        top_a, top_b = top_set(counts_a, size), top_set(counts_b, size)
        weighted = divergence = math.nan
        if counts_a.sum() and counts_b.sum():
            p, q = counts_a / counts_a.sum(), counts_b / counts_b.sum()
            weighted = np.minimum(p, q).sum() / np.maximum(p, q).sum()
            divergence = jensen_shannon_bits(p, q)
        rows.append(
            (
                layer,
                n_tokens_a,
                n_tokens_b,
                size,
                len(top_a & top_b),
                divide(len(top_a & top_b), len(top_a | top_b)),
                expected_jaccard(len(top_a), len(top_b), a.n_experts)
                if a.n_experts == b.n_experts
                else math.nan,
                divide(len(top_a & top_b), min(len(top_a), len(top_b))),
                weighted,
                divergence,
            )
        )
    return frame(
        "layer n_tokens_a n_tokens_b m n_shared jaccard expected_jaccard overlap_coefficient "
        "weighted_jaccard jensen_shannon",
        rows,
    )


def expected_jaccard(n_a: int, n_b: int, n_experts: int) -> float:
    """The mean Jaccard coefficient of two random sets; NaN of two empty ones."""
    if not n_a + n_b:
        return math.nan
    shared = np.arange(min(n_a, n_b) + 1)
    chances = hypergeom.pmf(shared, n_experts, n_a, n_b)
    return float((chances * shared / (n_a + n_b - shared)).sum())


def load_balance(tables: Tables, run_id: str, split: str | None = None) -> pd.DataFrame:
    examples = selected_examples(tables, run_id, split)
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    mass = of_run(tables, "router_mass", run_id)
    mass = mass[mass["example_id"].isin(examples)]
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens):
        counts, n_experts = choices.counts, choices.n_experts
        used = int((counts > 0).sum())
        head = (choices.layer, n_experts, int(counts.sum()), used, n_experts - used)
        if not counts.sum():
            rows.append((*head, *[math.nan] * 6))
            continue
        shares = counts / counts.sum()
        here = mass[mass["layer"] == choices.layer]
        probability = np.zeros(n_experts)
        np.add.at(probability, here["expert"], here["probability"].to_numpy().astype(np.float64))
        loss = math.nan
        if len(here):
            loss = n_experts * float(shares @ (probability / len(tokens)))
        nats = entropy_bits(shares) * math.log(2)
        rows.append(
            (
                *head,
                divide(entropy_bits(shares), math.log2(n_experts)),
                math.exp(nats),
                gini(counts),
                float(np.std(counts) / np.mean(counts)),
                float(counts.max() / counts.mean()),
                loss,
            )
        )
    return frame(
        "layer n_experts n_decisions n_used n_dead normalized_entropy effective_experts gini cv "
        "max_over_mean switch_loss",
        rows,
    )


def router_confidence(
    tables: Tables, run_id: str, split: str | None = None, key: str | None = None
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    everything = {"all": {int(token) for token in tokens}}
    values = everything if key is None else token_values(tables, run_id, key)
    stats = of_run(tables, "router_stats", run_id)
    rows: list[tuple[object, ...]] = []
    for layer in sorted(stats["layer"].unique()):
        for value in in_order(list(values)):
            members = tokens[np.isin(tokens, list(values[value]))]
            here = stats[(stats["layer"] == layer) & stats["token_idx"].isin(members)]
            if here.empty:
                continue
            columns = {name: here[name].to_numpy().astype(np.float64) for name in _STATISTICS}
            spread = np.std(columns["entropy"], ddof=1) if len(here) > 1 else math.nan
            rows.append(
                (
                    layer,
                    value,
                    len(here),
                    columns["entropy"].mean(),
                    columns["margin"].mean(),
                    columns["topk_mass"].mean(),
                    spread,
                    columns["logsumexp"].mean(),
                )
            )
    return frame(
        "layer value n_tokens mean_entropy mean_margin mean_topk_mass sd_entropy mean_logsumexp",
        rows,
    )


_STATISTICS = ("entropy", "margin", "topk_mass", "logsumexp")


def top_tokens(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    layer: int | None = None,
    expert: int | None = None,
    by: str = "count",
    min_count: int = 2,
    n: int = 5,
) -> pd.DataFrame:
    everything = of_run(tables, "tokens", run_id)
    context_of = {
        int(example): group.sort_values("position")
        for example, group in everything.groupby("example_id")
    }
    tokens = selected_tokens(tables, run_id, split)
    token_ids = np.array([-1 if pd.isna(one) else int(one) for one in tokens["token_id"]])
    vocabulary, occurrences = np.unique(token_ids[token_ids >= 0], return_counts=True)
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens["token_idx"].to_numpy(), layer):
        chosen = choices.chosen
        for one in range(choices.n_experts):
            if expert is not None and one != expert:
                continue
            mine = token_ids[chosen[:, one] > 0]
            candidates = []
            for token_id, n_token in zip(vocabulary, occurrences, strict=True):
                n_decisions = int((mine == token_id).sum())
                if n_decisions and n_token >= min_count:
                    rate = n_decisions / n_token
                    order = (-rate, -n_decisions) if by == "lift" else (-n_decisions, -rate)
                    candidates.append((*order, int(token_id), n_decisions, int(n_token), rate))
            for place, candidate in enumerate(sorted(candidates)[:n], start=1):
                token_id, n_decisions, n_token, rate = candidate[2:]
                at = np.flatnonzero((token_ids == token_id) & (chosen[:, one] > 0))[0]
                first = tokens.iloc[at]
                rows.append(
                    (
                        choices.layer,
                        one,
                        place,
                        token_id,
                        min(tokens["token"][token_ids == token_id]),
                        n_decisions,
                        n_token,
                        rate,
                        rate / (len(mine) / len(tokens)),
                        _in_context(context_of[int(first["example_id"])], int(first["token_idx"])),
                    )
                )
    return frame("layer expert place token_id token n_decisions n_token rate lift context", rows)


def _in_context(example: pd.DataFrame, token_idx: int) -> str:
    texts = ["" if pd.isna(text) else text for text in example["token"]]
    at = example["token_idx"].tolist().index(token_idx)
    before, after = texts[max(0, at - 8) : at], texts[at + 1 : at + 5]
    return "".join([*before, "[[", texts[at], "]]", *after])


def ioi_logit_diff(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    key: str = "template",
    condition: int = 0,
) -> pd.DataFrame:
    predictions = of_run(tables, "predictions", run_id)
    predictions = predictions[
        (predictions["condition_id"] == condition)
        & predictions["logit_diff"].notna()
        & predictions["example_id"].isin(selected_examples(tables, run_id, split))
    ]
    labels = of_run(tables, "example_labels", run_id)
    labels = labels[labels["key"] == key]
    groups = [
        (value, predictions[predictions["example_id"].isin(members["example_id"])])
        for value, members in sorted(
            labels.groupby("value"),
            key=lambda pair: in_order(list(set(labels["value"]))).index(pair[0]),
        )
    ]
    rows: list[tuple[object, ...]] = []
    for value, members in [*groups, ("all", predictions)]:
        size = len(members)
        if not size:
            continue
        difference = members["logit_diff"].to_numpy().astype(np.float64)
        n_right = int((difference > 0).sum())
        n_top1 = int((members["predicted"] == members["target"]).sum())
        spread = float(np.std(difference, ddof=1)) if size > 1 else math.nan
        rows.append(
            (
                value,
                size,
                n_right,
                n_right / size,
                difference.mean(),
                spread,
                spread / math.sqrt(size),
                n_top1,
                n_top1 / size,
                members["target_logprob"].to_numpy().astype(np.float64).mean(),
            )
        )
    return frame(
        "value n_prompts n_correct_order accuracy mean_logit_diff sd_logit_diff se_logit_diff "
        "n_top1 top1_accuracy mean_target_logprob",
        rows,
    )


ORACLES: dict[str, Callable[..., pd.DataFrame]] = {
    "expert-frequency": expert_frequency,
    "concentration": concentration,
    "routing-by-class": routing_by_class,
    "expert-specialization": expert_specialization,
    "co-activation": co_activation,
    "co-activation-adjacent": co_activation_adjacent,
    "overlap": overlap,
    "load-balance": load_balance,
    "router-confidence": router_confidence,
    "top-tokens": top_tokens,
    "ioi-logit-diff": ioi_logit_diff,
}


ASKED_FOR = frozenset({"expert-similarity"})
"""Queries over what a capture keeps where it is told to."""


def queries_over_one_run() -> set[str]:
    """The queries that have their oracle here: those over what every capture of a model keeps."""
    return {
        name
        for name, query in catalog().items()
        if not (query.reads_trials or query.reads_additions or name in ASKED_FOR)
    }


def assert_same_rows(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Fail unless both have the same rows in the same order; floats to 1 part in 10^9."""
    assert list(actual.columns) == list(expected.columns)
    assert len(actual) == len(expected)
    for column in expected.columns:
        left, right = actual[column], expected[column]
        if column in {"split", "key", "value", "top_value", "token", "context"}:
            texts = [[None if pd.isna(text) else text for text in side] for side in (left, right)]
            assert texts[0] == texts[1], column
        else:
            np.testing.assert_allclose(
                left.to_numpy(dtype=np.float64, na_value=np.nan),
                right.to_numpy(dtype=np.float64, na_value=np.nan),
                rtol=1e-9,
                atol=1e-12,
                err_msg=column,
            )
