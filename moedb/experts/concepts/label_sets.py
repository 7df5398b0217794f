"""The labels that rules have given a run."""

import json
from typing import TYPE_CHECKING, Any

from moedb.store.reading.additions import StoredAddition, additions_of

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

KIND = "concepts"
"""The kind of additions that are labels by rules."""

LabelSet = tuple[str, str | None, str | None, int | None, int, str, str, str | None]
"""Name, rules, hash of these, how many rules, labels, when, version of moedb, keys."""


def label_sets(run: "RunSnapshot") -> list[LabelSet]:
    """What rules have labelled a run, in the order in which they did."""
    return [_described(each) for each in additions_of(run).values() if each.about.kind == KIND]


def _described(addition: StoredAddition) -> LabelSet:
    config = _config(addition.about.config)
    keys = config.get("keys")
    names = [str(key) for key in keys] if isinstance(keys, list) else None
    return (
        addition.name,
        _text(config.get("rules")),
        _text(config.get("sha256")),
        None if names is None else len(names),
        addition.n_rows.get("token_labels", 0),
        addition.about.added_at,
        addition.about.version,
        None if names is None else ", ".join(names),
    )


def _config(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
