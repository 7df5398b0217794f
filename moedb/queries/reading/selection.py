"""The examples that the parameter ``split`` of a question reads."""

from collections.abc import Iterable

from moedb.queries.results.result import CORRUPTED

SELECTED_EXAMPLES = """(
    select selections.example_id
    from selections
    where selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
)"""
"""The examples of ``$split`` of ``$run``, as a subquery."""


def selects_everything(splits: Iterable[str], split: object) -> bool:
    """Whether the parameter ``split`` leaves no example out of a run that has these splits."""
    if split == "all":
        return True
    return CORRUPTED not in splits if split is None else set(splits) <= {split}
