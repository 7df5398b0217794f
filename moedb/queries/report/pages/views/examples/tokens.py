"""The tokens of examples with their decisions: experts, weights, entropy, agreement of two runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.columns import numbers, texts
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.examples.images import (
    has_images,
    outcomes_of,
    scores_of,
    sheets_of,
)
from moedb.store.reading.snapshot import RunSnapshot

UNMATCHED = 255
"""In the place of how many experts two runs share: the other run lacks the token."""

_EXAMPLES = """
select example_id, split, n_tokens
from examples
where run_id = cast($run as varchar)
order by example_id
""".strip()
_EXAMPLE_LABELS = """
select key, example_id, string_agg(value, ', ' order by value) as value
from example_labels
where run_id = cast($run as varchar)
group by key, example_id
order by key, example_id
""".strip()
_TOKENS = """
select token_idx, example_id, position, token, array_row
from tokens
where run_id = cast($run as varchar)
    and example_id between cast($first as integer) and cast($last as integer)
order by example_id, position
""".strip()
_TOKEN_LABELS = """
select
    token_labels.key,
    token_labels.token_idx,
    string_agg(token_labels.value, ', ' order by token_labels.value) as value
from token_labels
join tokens using (run_id, token_idx)
where token_labels.run_id = cast($run as varchar)
    and tokens.example_id between cast($first as integer) and cast($last as integer)
group by 1, 2
order by 1, 2
""".strip()
_DECISIONS = """
select routing.expert, routing.weight
from routing
join tokens using (run_id, token_idx)
where routing.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and tokens.example_id between cast($first as integer) and cast($last as integer)
order by tokens.example_id, tokens.position, routing.rank
""".strip()
_STATISTICS = """
select router_stats.entropy
from router_stats
join tokens using (run_id, token_idx)
where router_stats.run_id = cast($run as varchar)
    and router_stats.layer = cast($layer as integer)
    and tokens.example_id between cast($first as integer) and cast($last as integer)
order by tokens.example_id, tokens.position
""".strip()
_SHARED = """
with matched as (
    select
        tokens.token_idx,
        other.token_idx as other_idx
    from tokens
    join tokens as other
        on tokens.example_id = other.example_id
        and tokens.position = other.position
        and tokens.token_id is not distinct from other.token_id
    where tokens.run_id = cast($run as varchar)
        and other.run_id = cast($run_b as varchar)
        and tokens.example_id between cast($first as integer) and cast($last as integer)
),

own as (
    select routing.token_idx, routing.expert, matched.other_idx
    from routing
    join matched on routing.token_idx = matched.token_idx
    where routing.run_id = cast($run as varchar)
        and routing.layer = cast($layer as integer)
),

others as (
    select routing.token_idx, routing.expert
    from routing
    where routing.run_id = cast($run_b as varchar)
        and routing.layer = cast($layer as integer)
)

select
    own.token_idx,
    count(others.expert) as n_shared
from own
left join others on own.other_idx = others.token_idx and own.expert = others.expert
group by own.token_idx
order by own.token_idx
""".strip()


@dataclass(frozen=True)
class Slice:
    """Examples that follow each other, by their numbers; both ends are in it."""

    first: int
    last: int
    n_tokens: int


def slices_of(subject: Subject, most_decisions: int) -> list[Slice]:
    """Divide the examples of a run so that none of the parts has too many decisions.

    Parameters
    ----------
    subject
        The run.
    most_decisions
        Decisions of a part; one example is never divided.
    """
    per_token = sum(int(row["top_k"]) for row in subject.run.manifest.layers)
    found: list[Slice] = []
    start, n_tokens, last = None, 0, 0
    for example, _, n in subject.database.sql(_EXAMPLES, {"run": subject.run.run_id}).fetchall():
        if start is not None and (n_tokens + n) * per_token > most_decisions:
            found.append(Slice(start, last, n_tokens))
            start, n_tokens = None, 0
        start = example if start is None else start
        n_tokens, last = n_tokens + n, example
    return [*found, Slice(start, last, n_tokens)] if start is not None else found


def examples(subject: Subject, slices: Sequence[Slice]) -> Json:
    """The examples of a run and their labels, to choose one of."""
    import numpy as np

    rows = subject.database.sql(_EXAMPLES, {"run": subject.run.run_id}).fetchall()
    place = {example: number for number, (example, _, _) in enumerate(rows)}
    labels: dict[str, list[str | None]] = {}
    found = subject.database.sql(_EXAMPLE_LABELS, {"run": subject.run.run_id}).fetchall()
    for key, example, value in found:
        labels.setdefault(key, [None] * len(rows))[place[example]] = value
    return {
        "id": "examples",
        "example_id": numbers(np.array([row[0] for row in rows], dtype=np.int64)),
        "split": texts([row[1] for row in rows]),
        "n_tokens": numbers(np.array([row[2] for row in rows], dtype=np.int64)),
        "labels": [{"key": key, "value": texts(values)} for key, values in labels.items()],
        "slices": [[part.first, part.last] for part in slices],
        "run_b": None if subject.run_b is None else subject.run_b.title,
    }


def tokens(subject: Subject, part: Slice, number: int = 0) -> Json:
    """The tokens of some examples, with the decisions of every layer."""
    asked = {"run": subject.run.run_id, "first": part.first, "last": part.last}
    rows = subject.database.sql(_TOKENS, asked).arrow()
    token_idx = rows["token_idx"].to_numpy()
    place = {int(token): at for at, token in enumerate(token_idx)}
    is_of_images = has_images(subject.run)
    labels: dict[str, list[str | None]] = {}
    for key, token, value in subject.database.sql(_TOKEN_LABELS, asked).fetchall():
        labels.setdefault(key, [None] * len(token_idx))[place[token]] = value
    example_ids = rows["example_id"].to_numpy()
    return {
        "id": f"tokens-{number}",
        "token_idx": numbers(token_idx),
        "example_id": numbers(example_ids),
        "token": texts(rows["token"].to_pylist()),
        "labels": [{"key": key, "value": texts(values)} for key, values in labels.items()],
        "layers": [
            _layer(
                subject, int(row["layer"]), int(row["top_k"]), int(row["n_experts"]), asked, place
            )
            for row in subject.run.manifest.layers
        ],
        "images": sheets_of(subject, rows["array_row"].to_pylist()),
        "answers": outcomes_of(subject, asked, example_ids.tolist()) if is_of_images else None,
        "sql": _DECISIONS,
    }


def _layer(
    subject: Subject,
    layer: int,
    top_k: int,
    n_experts: int,
    asked: dict[str, Any],
    place: dict[int, int],
) -> Json:
    """The decisions of a layer, those of a token together by rank: token times top k."""
    here = {**asked, "layer": layer}
    decisions = subject.database.sql(_DECISIONS, here).arrow()
    entropy = subject.database.sql(_STATISTICS, here).arrow()["entropy"].to_numpy()
    return {
        "layer": layer,
        "top_k": top_k,
        "n_experts": n_experts,
        "expert": numbers(decisions["expert"].to_numpy()),
        "weight": numbers(decisions["weight"].to_numpy()),
        "entropy": numbers(entropy) if len(entropy) == len(place) else None,
        "shared": _shared(subject, here, place),
        **(scores_of(subject, here, len(place), n_experts) if has_images(subject.run) else {}),
    }


def _shared(subject: Subject, here: dict[str, Any], place: dict[int, int]) -> Json | None:
    """For each token how many of its experts the other run chose; None without such a layer."""
    import numpy as np

    if subject.run_b is None or not _is_alike(subject.run, subject.run_b, int(here["layer"])):
        return None
    shared = np.full(len(place), UNMATCHED, dtype=np.int64)
    rows = subject.database.sql(_SHARED, {**here, "run_b": subject.run_b.run_id}).fetchall()
    for token, n_shared in rows:
        shared[place[token]] = n_shared
    return dict(numbers(shared))


def _is_alike(run: RunSnapshot, run_b: RunSnapshot, layer: int) -> bool:
    """Whether a layer has as many experts in both runs, and as many of them chosen."""
    of_run, of_other = (
        {row["layer"]: (row["n_experts"], row["top_k"]) for row in each.manifest.layers}
        for each in (run, run_b)
    )
    return of_run.get(layer) == of_other.get(layer)
