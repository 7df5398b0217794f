"""What each expert of a layer does: its contexts, and how its scores are spread."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.queries.report.pages.asking import Json, Part, answered
from moedb.queries.report.pages.columns import numbers, read_table, table, texts
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.examples.images import has_images, sheets_of

if TYPE_CHECKING:
    from moedb.queries.results.result import Result

CONTEXTS = 5
"""Contexts of each expert that are shown, of each way of choosing them."""

_WAYS = {
    "top": "the largest scores",
    "quantile": "one of each fifth of the scores, the largest first",
    "random": "drawn from all",
}
_BINS = 20
_ARRAY_ROWS = """
select token_idx, array_row
from tokens
where run_id = cast($run as varchar)
    and token_idx in (select unnest(cast($token_idx as bigint[])))
""".strip()
_HISTOGRAM = """
with scores as (
    select
        routing.expert,
        cast(routing.weight as double) * routing.output_norm as score
    from routing
    join tokens using (run_id, token_idx)
    join selections using (run_id, example_id)
    where routing.run_id = cast($run as varchar)
        and routing.layer = cast($layer as integer)
        and selections.selection = 'default'
),

widest as (
    select scores.expert, max(scores.score) as most
    from scores
    group by scores.expert
)

select
    scores.expert,
    cast(least(floor(scores.score * cast($bins as integer) / nullif(widest.most, 0)), $bins - 1)
        as integer) as bin,
    count(*) as n_decisions,
    min(widest.most) as most
from scores
join widest using (expert)
group by 1, 2
order by 1, 2
""".strip()


def experts(subject: Subject, layer: int) -> Json:
    """What there is of each expert of a layer beside its rows in the sections."""
    return {
        "id": f"experts-{layer}",
        "layer": layer,
        "n_experts": subject.contents.experts[layer],
        "contexts": [_contexts(subject, layer, by) for by in _WAYS],
        "scores": _histogram(subject, layer),
    }


def _contexts(subject: Subject, layer: int, by: str) -> Json:
    """Contexts as tokens one behind the other, with the scores of those that chose the expert."""
    part = Part(
        f"contexts-{by}",
        "top-contexts",
        f"Contexts: {_WAYS[by]}",
        {"layer": layer, "by": by, "n": CONTEXTS},
    )
    told = answered(subject, part)
    if "table" not in told:
        return told
    rows = read_table(told["table"])
    windows = [json.loads(each) for each in rows["routed"]]
    shown = [token for window in windows for token, _ in window]
    scores = [score for window in windows for _, score in window]
    told["windows"] = {
        "lengths": numbers(_integers([len(window) for window in windows])),
        "at": numbers(_integers(_marked(rows, windows))),
        "tokens": texts(shown),
        "scores": numbers(_floats(scores)),
    }
    if has_images(subject.run):
        told["images"] = sheets_of(subject, _array_rows(subject, rows["token_idx"].tolist()))
    left = ("routed", "before", "after")
    told["table"]["columns"] = [
        column for column in told["table"]["columns"] if column["name"] not in left
    ]
    return told


def _array_rows(subject: Subject, token_idx: Sequence[int]) -> list[int | None]:
    """Where the arrays have each token."""
    asked = {"run": subject.run.run_id, "token_idx": list(token_idx)}
    place = dict(subject.database.sql(_ARRAY_ROWS, asked).fetchall())
    return [place[token] for token in token_idx]


def _marked(
    rows: dict[str, Any], windows: Sequence[Sequence[tuple[str, float | None]]]
) -> list[int]:
    """Which token of a window its context is of: that behind the text before it, of its score."""
    found = []
    for before, score, window in zip(rows["before"], rows["score"], windows, strict=True):
        length, at = 0, -1
        for number, (token, own) in enumerate(window):
            if length == len(before) and own == score:
                at = number
                break
            length += len(token)
        found.append(at)
    return found


def _integers(values: Sequence[int]) -> Any:
    import numpy as np

    return np.array(values, dtype=np.int64)


def _floats(values: Sequence[float | None]) -> Any:
    import numpy as np

    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def _histogram(subject: Subject, layer: int) -> Json:
    """How the scores of each expert are spread, in bins up to its largest."""
    asked = {"run": subject.run.run_id, "layer": layer, "bins": _BINS}
    found: Result = subject.database.sql(_HISTOGRAM, asked)
    return {"n_bins": _BINS, "table": table(found.arrow()), "sql": _HISTOGRAM}
