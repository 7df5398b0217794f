"""Made-up runs: tables as a capture would write them, from random router logits."""

import math

import duckdb
import numpy as np
import pandas as pd

from moedb.queries.questions.macros import create_macros
from moedb.schemas.tables import TABLES
from moedb.store.engine.views import Views

OLDER, NEWER, UNFINISHED = "qwen-ioi-0a", "qwen-ioi-1b", "qwen-ioi-2c"
WORDS = (
    "The",
    " bear",
    " saw",
    " 'quoted'",
    ",",
    " Mary",
    " and",
    " John",
    " gave",
    " a",
    "é",
    ".",
)


def make_tables(seed: int) -> dict[str, pd.DataFrame]:
    """Three runs: an older one with k = 2, the newest complete one with k = 4, one unfinished."""
    rng = np.random.default_rng(seed)
    parts = [
        _make_run(rng, OLDER, {0: 7, 2: 8, 5: 5}, 2, "2026-01-01", "complete"),
        _make_run(rng, NEWER, {2: 8, 3: 16, 5: 6}, 4, "2026-01-02", "complete"),
        _make_run(rng, UNFINISHED, {2: 4}, 1, "2026-01-03", "incomplete"),
    ]
    frames = {}
    for table in TABLES:
        rows = pd.concat([pd.DataFrame(part.get(table.name, [])) for part in parts])
        frames[table.name] = rows.reindex(columns=list(table.column_names)).reset_index(drop=True)
        for column in table.columns:
            if column.type == "float":
                frames[table.name][column.name] = frames[table.name][column.name].astype("float32")
    return frames


def no_rows() -> dict[str, pd.DataFrame]:
    """Every table without a row."""
    return {table.name: pd.DataFrame(columns=list(table.column_names)) for table in TABLES}


def connect(
    tables: dict[str, pd.DataFrame], seed: int | None = None, *, macros: bool = True
) -> duckdb.DuckDBPyConnection:
    """A connection as a store gives it: views over the data, the derived views, the macros.

    With a seed the rows of every table are shuffled first. Without macros it is there sooner.
    """
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("create schema files")
    for table in TABLES:
        rows = tables[table.name]
        if seed is not None:
            rows = rows.sample(frac=1, random_state=seed)
        typed = ", ".join(f"{column.name} {column.sql_type}" for column in table.columns)
        names = ", ".join(table.column_names)
        unqualified = f"select {names} from files.{table.name}"
        connection.execute(f"create table files.{table.name} ({typed})")
        if len(rows):
            connection.register("incoming", rows)
            connection.execute(f"insert into files.{table.name} from incoming")
            connection.unregister("incoming")
        connection.execute(f"create view {table.name} as {unqualified}")
    connection.execute(_COUNT_DECISIONS)
    Views(connection).define_all()
    if macros:
        create_macros(connection)
    return connection


# as a capture writes it: what each example's tokens chose, beside the router's probabilities
_COUNT_DECISIONS = """
create or replace table files.router_mass as
with decisions as (
    select
        tokens.run_id,
        tokens.example_id,
        routing.layer,
        routing.expert,
        cast(count(*) as integer) as n_decisions,
        sum(cast(routing.weight as double)) as weight
    from files.routing join files.tokens using (run_id, token_idx)
    group by all
)
select
    run_id,
    example_id,
    layer,
    expert,
    probability,
    coalesce(decisions.n_decisions, 0) as n_decisions,
    coalesce(decisions.weight, 0) as weight
from files.router_mass full join decisions using (run_id, example_id, layer, expert)
"""


def _make_run(
    rng: np.random.Generator,
    run_id: str,
    experts: dict[int, int],
    top_k: int,
    created_at: str,
    status: str,
) -> dict[str, list[dict[str, object]]]:
    n_examples = 36
    lengths = rng.integers(1, 16, n_examples)
    splits = [("clean", "corrupted", "clean", "held-out")[i % 4] for i in range(n_examples)]
    rows: dict[str, list[dict[str, object]]] = {table.name: [] for table in TABLES}

    def add(name: str, **values: object) -> None:
        rows[name].append({"run_id": run_id, **values})

    add("runs", job="qwen-ioi", status=status, created_at=created_at, n_examples=n_examples)
    add("run_labels", key="model", value="base" if run_id == OLDER else "chat")
    for layer, n_experts in experts.items():
        add("moe_layers", layer=layer, n_experts=n_experts, top_k=top_k, scoring="softmax")

    token_ids, example_of = [], []
    for example_id, length in enumerate(lengths):
        add("examples", example_id=example_id, split=splits[example_id], n_tokens=int(length))
        if example_id % 7:
            value = ("1", "2", "10", "odd")[int(rng.integers(4))]
            add("example_labels", example_id=example_id, key="template", value=value)
        kind = ("all", "'s")[example_id % 2]
        add("example_labels", example_id=example_id, key="kind", value=kind)
        for position in range(length):
            token_idx = len(token_ids)
            # a geometric draw: some words are common, some occur once; example 3 has no words
            word = min(int(rng.geometric(0.25)), len(WORDS)) - 1
            token_id = None if example_id == 3 else word
            add(
                "tokens",
                token_idx=token_idx,
                example_id=example_id,
                position=position,
                token_id=token_id,
                token=None if token_id is None else WORDS[word],
            )
            token_ids.append(word)
            example_of.append(example_id)
            if rng.random() < 0.3:
                role = ("IO", "S1", "S2")[int(rng.integers(3))]
                add("token_labels", token_idx=token_idx, key="role", value=role)
            if rng.random() < 0.2:
                # the same key as on examples, often with the same value
                add("token_labels", token_idx=token_idx, key="template", value="2")
    n_tokens = len(token_ids)

    for layer, n_experts in experts.items():
        logits = rng.normal(size=(n_tokens, n_experts))
        logits += 2 * rng.normal(size=(len(WORDS), n_experts))[token_ids]
        if layer == 5:
            # every expert in turn: their counts are equal, or differ by one
            turns = np.arange(n_tokens)[:, None] + np.arange(top_k)[None, :]
            np.put_along_axis(logits, turns % n_experts, 20.0 - np.arange(top_k), axis=1)
        elif n_experts > top_k + 1:
            logits[:, [1, n_experts - 1]] -= 50.0
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        chosen = np.take_along_axis(probabilities, order, axis=1)
        weights = chosen / chosen.sum(axis=1, keepdims=True) if top_k == 4 else chosen
        descending = -np.sort(-probabilities, axis=1)
        for token_idx in range(n_tokens):
            for rank in range(top_k):
                add(
                    "routing",
                    token_idx=token_idx,
                    layer=layer,
                    rank=rank,
                    expert=int(order[token_idx, rank]),
                    weight=float(weights[token_idx, rank]),
                    output_norm=1.0,
                )
            row = probabilities[token_idx]
            add(
                "router_stats",
                token_idx=token_idx,
                layer=layer,
                entropy=float(-(row * np.log2(np.maximum(row, 1e-300))).sum()),
                margin=float(descending[token_idx, 0] - descending[token_idx, 1]),
                logsumexp=float(math.log(np.exp(logits[token_idx]).sum())),
                topk_mass=float(chosen[token_idx].sum()),
                moe_output_norm=1.0,
            )
        for example_id in range(n_examples):
            mass = probabilities[np.array(example_of) == example_id].sum(axis=0)
            for expert in range(n_experts):
                add(
                    "router_mass",
                    example_id=example_id,
                    layer=layer,
                    expert=expert,
                    probability=float(mass[expert]),
                )

    for condition_id in (0, 1):
        for example_id in range(n_examples):
            predicted = (" Mary", " John")[int(rng.integers(2))]
            difference: float | None = float(rng.normal(1 - condition_id))
            if example_id % 11 == 0:
                difference = 0.0
            if example_id % 9 == 4:
                difference = None
            add(
                "predictions",
                condition_id=condition_id,
                example_id=example_id,
                target=" Mary",
                predicted=predicted,
                correct=int(predicted == " Mary"),
                target_logprob=float(-rng.exponential()),
                logit_diff=difference,
            )
    return rows
