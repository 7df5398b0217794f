"""The conditions of a run: what is changed in the model, one row of ``conditions`` each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moedb.store.writing.tables.parquet import Columns


@dataclass(frozen=True)
class Condition:
    """One intervention setting.

    Attributes
    ----------
    kind
        What is changed.
    layer, expert
        Where, and for which expert; None where it is not at one.
    params
        Further parameters.
    """

    kind: str
    layer: int | None = None
    expert: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


UNTOUCHED = Condition("none")
"""Condition 0 of every run."""


def condition_table(conditions: Sequence[Condition]) -> Columns:
    """The rows of the table ``conditions``; a condition's id is its place."""
    return {
        "condition_id": list(range(len(conditions))),
        "kind": [condition.kind for condition in conditions],
        "layer": [condition.layer for condition in conditions],
        "expert": [condition.expert for condition in conditions],
        "params": [json.dumps(dict(c.params), sort_keys=True) for c in conditions],
    }
