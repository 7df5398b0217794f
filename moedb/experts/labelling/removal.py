"""Taking labels of experts out of a run, and the answers that they were made from."""

from pathlib import Path
from typing import NamedTuple

from moedb.errors import UsageError
from moedb.experts.labelling.asking.journal import answers_path, forget, read_answers
from moedb.experts.labelling.running import KIND
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import additions_of
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.writing.complete.additions import no_such_addition, remove_addition


class Removed(NamedTuple):
    """What was removed.

    Attributes
    ----------
    n_labels
        Labels of experts.
    n_answers
        Answers in the journal, deleted or not.
    """

    n_labels: int
    n_answers: int


def remove_labels(store: Path, run: str, name: str, forgets: bool) -> Removed:
    """Take labels of experts out of a run.

    Parameters
    ----------
    store
        The store's folder.
    run
        The run, or an unambiguous beginning of its name.
    name
        What the labels are called together.
    forgets
        Whether the answers that were kept for them are deleted.

    Raises
    ------
    UsageError
        If there are none of this name.
    StoreError
        If the store cannot be written.
    """
    found = take_snapshot(store).run(run)
    layout = RunLayout(store, found.run_id)
    there = additions_of(found).get(name)
    n_answers = len(read_answers(answers_path(layout, name)))
    if there is None and not (forgets and n_answers):
        raise no_such_addition(found, name)
    if there is not None and there.about.kind != KIND:
        raise UsageError(
            f"{name!r} of run {found.title} is of {there.about.kind}, no labels of experts"
        )
    n_labels = 0
    if there is not None:
        n_labels = remove_addition(store, found.run_id, name).n_rows.get("expert_labels", 0)
    if forgets:
        forget(layout, name)
    return Removed(n_labels, n_answers)
