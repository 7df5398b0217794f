"""The queries that look at examples one by one, once more in numpy and pandas."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from tests.support.oracles.oracle import (
    Tables,
    divide,
    frame,
    in_order,
    layers_of,
    of_run,
    selected_examples,
    selected_tokens,
)


def tokens_in_scope(
    tables: Tables, run_id: str, split: str | None, scope: str, position: int | None
) -> pd.DataFrame:
    """The tokens that a scope takes of the selected examples, by token_idx."""
    tokens = selected_tokens(tables, run_id, split)
    if scope == "example":
        return tokens
    if position is None:
        return tokens.groupby("example_id").tail(1).reset_index(drop=True)
    return tokens[tokens["position"] == position].reset_index(drop=True)


def examples_in_order(
    tables: Tables, run_id: str, split: str | None, key: str
) -> list[tuple[str, str | None, int]]:
    """Split, value of the label and example, as the query orders them."""
    splits = of_run(tables, "examples", run_id).set_index("example_id")["split"].to_dict()
    labels = of_run(tables, "example_labels", run_id)
    values = labels[labels["key"] == key].groupby("example_id")["value"].min().to_dict()
    order = [*in_order(list(set(values.values()))), None]
    listed = [
        (splits[example], values.get(example), int(example))
        for example in selected_examples(tables, run_id, split)
    ]
    return sorted(listed, key=lambda e: (e[0] == "corrupted", e[0], order.index(e[1]), e[2]))


def routing_by_example(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    key: str = "template",
    scope: str = "token",
    position: int | None = None,
    layer: int | None = None,
) -> pd.DataFrame:
    tokens = tokens_in_scope(tables, run_id, split, scope, position)
    every = list(layers_of(tables, run_id, tokens["token_idx"].to_numpy(), layer))
    rows: list[tuple[object, ...]] = []
    for own_split, value, example in examples_in_order(tables, run_id, split, key):
        members = (tokens["example_id"] == example).to_numpy()
        for choices in every:
            counts = choices.chosen[members].sum(axis=0)
            weights = choices.weights[members].sum(axis=0)
            for expert in np.flatnonzero(counts):
                rows.append(
                    (
                        own_split,
                        key,
                        value,
                        example,
                        choices.layer,
                        int(expert),
                        choices.n_experts,
                        int(counts[expert]),
                        int(members.sum()),
                        counts[expert] / members.sum(),
                        weights[expert] / members.sum(),
                    )
                )
    return frame(
        "split key value example_id layer expert n_experts n_decisions n_tokens share weight", rows
    )


def active_experts(
    tables: Tables,
    run_id: str,
    split: str | None = None,
    scope: str = "token",
    position: int | None = None,
) -> pd.DataFrame:
    tokens = tokens_in_scope(tables, run_id, split, scope, position)
    examples = tokens["example_id"].to_numpy()
    found = sorted(set(examples.tolist()))
    rows: list[tuple[object, ...]] = []
    for choices in layers_of(tables, run_id, tokens["token_idx"].to_numpy()):
        active = np.array(
            [choices.chosen[examples == example].any(axis=0) for example in found]
        ).reshape(len(found), choices.n_experts)
        in_examples = active.sum(axis=0)
        used = in_examples > 0
        in_50 = used & (in_examples * 2 >= len(found))
        in_90 = used & (in_examples * 10 >= len(found) * 9)
        total = int(choices.counts.sum())
        taken = [int(choices.counts[kept].sum()) for kept in (in_50, in_90)]
        chances = [
            1 - (1 - choices.top_k / choices.n_experts) ** int((examples == example).sum())
            for example in found
        ]
        rows.append(
            (
                choices.layer,
                len(found),
                choices.n_experts,
                int(used.sum()),
                int(in_50.sum()),
                int(in_90.sum()),
                int(in_examples.max()),
                divide(in_examples.max(), len(found)),
                float(np.mean(chances)) if chances else math.nan,
                total,
                *taken,
                *(divide(count, total) for count in taken),
            )
        )
    return frame(
        "layer n_examples n_experts experts_ever experts_50 experts_90 n_most most uniform "
        "n_decisions n_decisions_50 n_decisions_90 share_50 share_90",
        rows,
    )


ORACLES: dict[str, Callable[..., pd.DataFrame]] = {
    "routing-by-example": routing_by_example,
    "active-experts": active_experts,
}
