"""The rows of an expert: its label, verdicts and scores of that, the requests that it took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from moedb.experts.labelling.asking.reader import Asked
from moedb.experts.labelling.drawing import KINDS, NEGATIVES, ScoredContext
from moedb.experts.labelling.scoring import score
from moedb.schemas.tables import (
    EXPERT_LABEL_SCORES,
    EXPERT_LABELS,
    LABEL_REQUESTS,
    LABEL_VERDICTS,
    Table,
)
from moedb.store.writing.tables.parquet import arrow_schema

SOURCE = "reader"
IMPORTED = "imported"
"""The kind of negative contexts of which imported labels do not say how they were chosen."""


@dataclass(frozen=True)
class Origin:
    """Where labels are from, and how they are scored.

    Attributes
    ----------
    label_set
        What they are called together.
    source
        ``reader``, or the form of the files that they were read from.
    endpoint
        Where requests were sent.
    samples, seed
        Draws of the bootstrap, and their seed.
    """

    label_set: str
    source: str = SOURCE
    endpoint: str = ""
    samples: int = 1000
    seed: int = 0


@dataclass
class Verdicts:
    """What a reader said of contexts.

    Attributes
    ----------
    contexts
        The contexts.
    own, other
        For each the verdict with the expert's own label, and with another's; None without one.
    """

    contexts: Sequence[ScoredContext]
    own: list[bool | None]
    other: list[bool | None]


@dataclass
class ExpertLabel:
    """An expert, as it was labelled, or not.

    Attributes
    ----------
    layer, expert, model, n_decisions, n_contexts, label, status, reason, other_expert, other_label
        As the columns of ``expert_labels``.
    verdicts
        By kind.
    asked
        Every request that it took.
    """

    layer: int
    expert: int
    model: str
    n_decisions: int = 0
    n_contexts: int = 0
    label: str | None = None
    status: str = "unused"
    reason: str | None = None
    other_expert: int | None = None
    other_label: str | None = None
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def part(self) -> str:
        """The name of its part of the addition."""
        return part_name(self.layer, self.expert)


_OF_LABEL = (
    *("model", "label", "status", "reason", "n_decisions", "n_contexts"),
    *("other_expert", "other_label"),
)


def part_name(layer: int, expert: int) -> str:
    """The name of the part of an addition that is an expert's."""
    return f"layer-{layer}-expert-{expert}"


def tables_of(found: ExpertLabel, origin: Origin) -> dict[str, list[pa.Table]]:
    """The rows of an expert, by table."""
    place = {"layer": found.layer, "expert": found.expert, "label_set": origin.label_set}
    label = {
        "source": origin.source,
        **{name: getattr(found, name) for name in _OF_LABEL},
    }
    requests = [
        {**place, "number": number, "endpoint": origin.endpoint, **_request(asked)}
        for number, asked in enumerate(found.asked)
    ]
    scores = [{**place, **row} for row in score_rows(found, origin.samples, origin.seed)]
    given: dict[Table, list[dict[str, Any]]] = {
        EXPERT_LABELS: [{**place, **label}],
        EXPERT_LABEL_SCORES: scores,
        LABEL_VERDICTS: [{**place, **row} for row in verdict_rows(found)],
        LABEL_REQUESTS: requests,
    }
    return {table.name: [_table(table, rows)] for table, rows in given.items() if rows}


def verdict_rows(found: ExpertLabel) -> list[dict[str, Any]]:
    """The contexts that a label was judged on, in the order in which they were asked about."""
    return [
        {
            "kind": kind,
            "number": number,
            "token_idx": context.token_idx,
            "example_id": context.example_id,
            "cluster": context.cluster,
            "against": context.against,
            "is_positive": int(context.is_positive),
            "has_others": _number(context.has_others),
            "says_yes": _number(own),
            "other_says_yes": _number(other),
            "text": context.text,
        }
        for kind, verdicts in found.verdicts.items()
        for number, (context, own, other) in enumerate(
            zip(verdicts.contexts, verdicts.own, verdicts.other, strict=True)
        )
    ]


def score_rows(found: ExpertLabel, samples: int, seed: int) -> list[dict[str, Any]]:
    """The scores of a label: for each kind against negatives of each kind, and against all."""
    rows = []
    for kind in KINDS:
        verdicts = found.verdicts.get(kind)
        if verdicts is None:
            continue
        for against in (*NEGATIVES, IMPORTED, "all"):
            picked = [
                place
                for place, each in enumerate(verdicts.contexts)
                if against == "all" or each.against in ("", against)
            ]
            contexts = [verdicts.contexts[place] for place in picked]
            negatives = [each.has_others for each in contexts if not each.is_positive]
            if not negatives:
                continue
            known = [each for each in negatives if each is not None]
            own, other = (
                score(
                    [each.is_positive for each in contexts],
                    [said[place] for place in picked],
                    [each.cluster for each in contexts],
                    n_samples,
                    seed,
                )
                for said, n_samples in ((verdicts.own, samples), (verdicts.other, 0))
            )
            rows.append(
                {
                    "kind": kind,
                    "against": against,
                    **asdict(own),
                    "other_f1": other.f1,
                    "other_accuracy": other.accuracy,
                    "other_balanced_accuracy": other.balanced_accuracy,
                    "routed_share": sum(known) / len(known) if known else None,
                }
            )
    return rows


def _number(truth: bool | None) -> int | None:
    return None if truth is None else int(truth)


def _request(asked: Asked) -> dict[str, Any]:
    reply = asked.reply
    columns = ("model", "prompt_tokens", "completion_tokens", "seconds", "attempts")
    return {
        "purpose": asked.purpose,
        "prompt": asked.prompt,
        "answer": None if reply is None else reply.text,
        **{name: None if reply is None else getattr(reply, name) for name in columns},
        "status": asked.status,
        "reason": asked.reason,
    }


def _table(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([field for field in arrow_schema(table) if field.name != "run_id"])
    return pa.Table.from_pylist(rows, schema=schema)
