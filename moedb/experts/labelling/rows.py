"""The rows of an expert: its label, verdicts and scores of that, the requests that it took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from moedb.experts.labelling.asking.reader import Asked
from moedb.experts.labelling.drawing import KINDS, NEGATIVES, ScoredContext
from moedb.experts.labelling.scoring import score
from moedb.experts.labelling.settings import LabelSettings
from moedb.schemas.tables import (
    EXPERT_LABEL_SCORES,
    EXPERT_LABELS,
    LABEL_REQUESTS,
    LABEL_VERDICTS,
    Table,
)
from moedb.store.writing.tables.parquet import arrow_schema

SOURCE = "reader"


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
    layer, expert, n_decisions, n_contexts, label, status, reason, other_expert, other_label
        As the columns of ``expert_labels``.
    verdicts
        By kind.
    asked
        Every request that it took.
    """

    layer: int
    expert: int
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


def part_name(layer: int, expert: int) -> str:
    """The name of the part of an addition that is an expert's."""
    return f"layer-{layer}-expert-{expert}"


def tables_of(
    found: ExpertLabel, settings: LabelSettings, endpoint: str
) -> dict[str, list[pa.Table]]:
    """The rows of an expert, by table."""
    place = {"layer": found.layer, "expert": found.expert, "label_set": settings.name}
    label = {
        "source": SOURCE,
        "model": settings.model,
        **{name: getattr(found, name) for name in ("label", "status", "reason", "n_decisions")},
        "n_contexts": found.n_contexts,
        "other_expert": found.other_expert,
        "other_label": found.other_label,
    }
    requests = [
        {**place, "number": number, "endpoint": endpoint, **_request(asked)}
        for number, asked in enumerate(found.asked)
    ]
    scores = [{**place, **row} for row in score_rows(found, settings)]
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


def score_rows(found: ExpertLabel, settings: LabelSettings) -> list[dict[str, Any]]:
    """The scores of a label: for each kind against negatives of each kind, and against all."""
    rows = []
    for kind in KINDS:
        verdicts = found.verdicts.get(kind)
        if verdicts is None:
            continue
        for against in (*NEGATIVES, "all"):
            wanted = ("", against) if against != "all" else ("", *NEGATIVES)
            picked = [
                place for place, each in enumerate(verdicts.contexts) if each.against in wanted
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
                    samples,
                    settings.seed,
                )
                for said, samples in ((verdicts.own, settings.samples), (verdicts.other, 0))
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
