"""Taking labels of experts out of a run, and the answers that they were made from."""

from pathlib import Path
from typing import NamedTuple

from moedb.experts.additions import addition_there, remove
from moedb.experts.labelling.asking.journal import answers_path, forget, read_answers
from moedb.experts.labelling.settings import KIND
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import take_snapshot


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
    n_answers = len(read_answers(answers_path(layout, name)))
    n_labels = 0
    if addition_there(found, name, KIND) is not None or not (forgets and n_answers):
        n_labels = remove(store, found.run_id, name, KIND).n_rows.get("expert_labels", 0)
    if forgets:
        forget(layout, name)
    return Removed(n_labels, n_answers)
