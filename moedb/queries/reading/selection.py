"""The examples that the parameter ``split`` of a question reads."""

from collections.abc import Collection, Iterable

from moedb.queries.results.result import CORRUPTED

SELECTED_EXAMPLES = """(
    select selections.example_id
    from selections
    where selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
)"""
"""The examples of ``$split`` of ``$run``, as a subquery."""


def selected_splits(splits: Iterable[str], split: object) -> list[str]:
    """Return those of a run's splits that the parameter ``split`` reads.

    Parameters
    ----------
    splits
        The splits that the run has.
    split
        Null for all but corrupted twins, ``all`` for every one, else the name of one.
    """
    if split is None:
        return [name for name in splits if name != CORRUPTED]
    return [name for name in splits if split in ("all", name)]


def selects_everything(splits: Collection[str], split: object) -> bool:
    """Whether the parameter ``split`` leaves no example out of a run that has these splits."""
    return len(selected_splits(splits, split)) == len(splits)
