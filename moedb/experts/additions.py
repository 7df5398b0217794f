"""What experts are found to do becomes an addition of the run: what has to hold for that."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import StoreError, UsageError
from moedb.store.reading.additions import StoredAddition, additions_of
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.writing.complete.additions import no_such_addition, remove_addition

if TYPE_CHECKING:
    from moedb.schemas.additions import Addition
    from moedb.store.reading.snapshot import RunSnapshot


def expect_tokens(run: "RunSnapshot", command: str) -> None:
    """Check that a run is complete and has tokens of its own.

    Parameters
    ----------
    run
        The run.
    command
        What would be typed for its parent, the run left out.

    Raises
    ------
    UsageError
        If it has no tokens.
    StoreError
        If it is incomplete.
    """
    if not run.is_complete:
        raise StoreError(
            f"run {run.run_id} is incomplete; only complete runs are added to",
            "finish it first: the command that began it goes on with it",
        )
    if not run.n_rows("tokens"):
        parent = run.row["parent_run_id"]
        raise UsageError(
            f"run {run.title} has no tokens of its own",
            f"take its parent: {command} {parent}" if parent else None,
        )


def addition_there(run: "RunSnapshot", name: str, kind: str) -> StoredAddition | None:
    """Return the addition of a run that is called ``name``, if there is one.

    Raises
    ------
    UsageError
        If it is of another kind.
    """
    there = additions_of(run).get(name)
    if there is not None and there.about.kind != kind:
        raise UsageError(
            f"run {run.title} has an addition named {name!r} that is of {there.about.kind}",
            "choose another name: --name NAME",
        )
    return there


def parts_there(run: "RunSnapshot", addition: "Addition", command: str) -> frozenset[str]:
    """Return the parts that a run has of an addition, after checking that others can follow.

    Parameters
    ----------
    run, addition
        The run, and the addition with its configuration, a JSON object.
    command
        What is typed to make it, the run left out.

    Raises
    ------
    UsageError
        If the run has one of the name that is of another kind, or was made with other settings.
    """
    there = addition_there(run, addition.name, addition.kind)
    if there is None:
        return frozenset()
    if there.about.config != addition.config:
        before, now = json.loads(there.about.config), json.loads(addition.config)
        others = [
            f"{key} {before.get(key)!r}, not {now.get(key)!r}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        raise UsageError(
            f"run {run.title} has {addition.name!r} with other settings: {'; '.join(others)}",
            f"go on with those, or choose another name (--name NAME), or take them out: "
            f"{command} {run.run_id} --remove {addition.name}",
        )
    return frozenset(there.about.parts)


def remove(store: Path, run: str, name: str, kind: str) -> StoredAddition:
    """Take an addition of one kind out of a run.

    Raises
    ------
    UsageError
        If the run has none of this name and kind.
    StoreError
        If the store cannot be written.
    """
    found = take_snapshot(store).run(run)
    if addition_there(found, name, kind) is None:
        raise no_such_addition(found, name)
    return remove_addition(store, found.run_id, name)
