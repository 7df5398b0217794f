"""The queries that compare layers, runs and tokens, once more in numpy and pandas."""

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from tests.support.oracles.oracle import (
    LayerChoices,
    Tables,
    divide,
    entropy_bits,
    frame,
    in_order,
    layers_of,
    of_run,
    selected_tokens,
    token_values,
)


def ranks_of(choices: LayerChoices) -> np.ndarray:
    """(rank, T, E), 1 where the token has the expert at the rank."""
    return np.stack([np.eye(choices.n_experts)[column] for column in choices.ranked.T])


def cross_layer(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    layer: int | None = None,
    pairs: str = "all",
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)
    every = list(layers_of(tables, run_id, tokens["token_idx"].to_numpy()))
    rows: list[tuple[object, ...]] = []
    for first, second in pairwise(every):
        if layer is not None and first.layer != layer:
            continue
        if pairs == "all":
            sides = [(first.chosen, second.chosen)]
        else:
            sides = list(zip(ranks_of(first), ranks_of(second), strict=False))
        both = sum(a.T @ b for a, b in sides)
        apart = sum(np.outer(a.sum(axis=0), b.sum(axis=0)) for a, b in sides) / max(len(tokens), 1)
        joint = both / max(both.sum(), 1)
        information = (
            entropy_bits(joint.sum(axis=1))
            + entropy_bits(joint.sum(axis=0))
            - entropy_bits(joint.ravel())
        )
        rows += [
            (
                first.layer,
                second.layer,
                a,
                b,
                both[a, b],
                first.counts[a],
                len(tokens),
                both[a, b] / first.counts[a],
                apart[a, b],
                both[a, b] / apart[a, b],
                max(information, 0.0),
            )
            for a, b in np.argwhere(both)
        ]
    return frame(
        "layer next_layer expert next_expert n_both n_expert n_tokens p_next_given expected lift "
        "information",
        rows,
    )


def saturation(tables: Tables, run_id: str, run_b: str, split: str | None = None) -> pd.DataFrame:
    def chosen(run: str) -> dict[tuple[int, int], list[int]]:
        routing = of_run(tables, "routing", run).sort_values("rank")
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in routing.itertuples():
            found[int(row.layer), int(row.token_idx)].append(int(row.expert))
        return found

    def places(tokens: pd.DataFrame) -> dict[tuple[int, int, object], int]:
        ids = tokens["token_id"].astype(object).where(tokens["token_id"].notna(), None)
        named = zip(tokens["example_id"], tokens["position"], ids, strict=True)
        return dict(zip(named, tokens["token_idx"].astype(int), strict=True))

    ours = places(selected_tokens(tables, run_id, split))
    theirs = places(of_run(tables, "tokens", run_b))
    matched = [(ours[place], theirs[place]) for place in ours.keys() & theirs.keys()]
    sides = chosen(run_id), chosen(run_b)
    shapes = [
        {
            (int(row.layer), int(row.n_experts), int(row.top_k))
            for row in of_run(tables, "moe_layers", run).itertuples()
        }
        for run in (run_id, run_b)
    ]
    rows = []
    for layer, n_experts, top_k in sorted(shapes[0] & shapes[1]):
        lists = [(sides[0][layer, a], sides[1][layer, b]) for a, b in matched]
        shared = sum(len(set(a) & set(b)) for a, b in lists)
        first = sum(a[0] == b[0] for a, b in lists)
        rows.append(
            (
                *(layer, top_k, len(matched), len(ours) - len(matched), shared),
                divide(shared, top_k * len(matched)),
                divide(first, len(matched)),
                top_k / n_experts,
            )
        )
    return frame(
        "layer top_k n_tokens n_unmatched n_shared saturation first_saturation uniform", rows
    )


def pair_specialization(
    tables: Tables,
    run_id: str,
    key: str,
    split: str | None = None,
    layer: int | None = None,
    min_decisions: int = 20,
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)["token_idx"].to_numpy()
    carriers = token_values(tables, run_id, key)
    of_value = {value: np.isin(tokens, list(carriers[value])) for value in carriers}
    values = [value for value in in_order(list(carriers)) if of_value[value].any()]
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens, layer):
        chosen = [choices.chosen[of_value[value]] for value in values]
        n_value = np.array([len(each) for each in chosen], float)
        of_layer = []
        for a, b in combinations(range(choices.n_experts), 2):
            both = np.array([(each[:, a] * each[:, b]).sum() for each in chosen])
            if both.sum() < max(min_decisions, 1):
                continue
            n_a, n_b = (np.array([each[:, e].sum() for each in chosen]) for e in (a, b))
            top = int(np.argmax(both))
            exclusivity = both[top] / both.sum()
            bits = entropy_bits(both / both.sum())
            # Bayes: what each says of a value, by how common the value is
            likely = (n_a / n_value) * (n_b / n_value) * n_value
            alone = n_a.max() / n_a.sum(), n_b.max() / n_b.sum()
            of_layer.append(
                (
                    *(choices.layer, a, b, int(both.sum()), int(n_a.sum()), int(n_b.sum())),
                    *(int((both > 0).sum()), values[top], int(both[top]), exclusivity, bits),
                    divide(bits, math.log2(len(values))),
                    math.log2(exclusivity * n_value.sum() / n_value[top]),
                    *(*alone, exclusivity - max(alone), likely[top] / likely.sum()),
                )
            )
        rows += sorted(of_layer, key=lambda row: (-row[9], -row[3], row[1], row[2]))
    return frame(
        "layer expert_a expert_b n_both n_a n_b n_values top_value n_top exclusivity "
        "conditional_entropy normalized_entropy pmi exclusivity_a exclusivity_b gain independent",
        rows,
    )


def vocabulary_specialization(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    of: str = "input",
    min_count: int = 8,
) -> pd.DataFrame:
    tokens = selected_tokens(tables, run_id, split)
    ids = [math.nan if value is None else float(value) for value in tokens["token_id"]]
    if of == "next":
        examples = tokens["example_id"].tolist()
        ids = [
            ids[at + 1] if at + 1 < len(ids) and examples[at + 1] == examples[at] else math.nan
            for at in range(len(ids))
        ]
    of_token = np.array(ids)
    rows = []
    for choices in layers_of(tables, run_id, tokens["token_idx"].to_numpy()):
        scores, sizes, total = [], [], np.zeros(choices.n_experts)
        for token_id in np.unique(of_token[~np.isnan(of_token)]):
            here = choices.chosen[of_token == token_id]
            if len(here) >= min_count:
                scores.append(here.mean(axis=0).max())
                sizes.append(len(here))
                total += here.sum(axis=0)
        if scores:
            rows.append(
                (
                    *(choices.layer, len(scores), sum(sizes)),
                    np.mean(scores),
                    np.average(scores, weights=sizes),
                    total.max() / sum(sizes),
                )
            )
    return frame("layer n_token_ids n_tokens specialization weighted baseline", rows)


ORACLES: dict[str, Callable[..., pd.DataFrame]] = {
    "cross-layer": cross_layer,
    "pair-specialization": pair_specialization,
    "saturation": saturation,
    "vocabulary-specialization": vocabulary_specialization,
}
