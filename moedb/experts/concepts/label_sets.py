"""The labels that rules have given a run: which there are, and taking them out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.store.reading.additions import StoredAddition, additions_of
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.writing.complete.additions import no_such_addition, remove_addition

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

KIND = "concepts"
"""The kind of additions that are labels by rules."""

LabelSet = tuple[str, str | None, str | None, int | None, int, str, str, str | None]
"""Name, rules, hash of these, how many rules, labels, when, version of moedb, keys."""


def label_sets(run: "RunSnapshot") -> list[LabelSet]:
    """What rules have labelled a run, in the order in which they did."""
    return [_described(each) for each in additions_of(run).values() if each.about.kind == KIND]


def remove_labels(store: Path, run: str, name: str) -> StoredAddition:
    """Take the labels out of a run that one file of rules gave.

    Parameters
    ----------
    store
        The store's folder.
    run
        The run, or an unambiguous beginning of its name.
    name
        What the labels are called together.

    Returns
    -------
    StoredAddition
        What was removed.

    Raises
    ------
    UsageError
        If there are no labels of this name.
    StoreError
        If the store cannot be written.
    """
    found = take_snapshot(store).run(run)
    there = additions_of(found).get(name)
    if there is None:
        raise no_such_addition(found, name)
    if there.about.kind != KIND:
        raise UsageError(
            f"{name!r} of run {found.title} is of {there.about.kind}, no labels by rules"
        )
    return remove_addition(store, found.run_id, name)


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
