"""What was computed from complete runs, kept while a database is open."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from moedb.store.reading.snapshot import RunSnapshot

T = TypeVar("T")


class Memo:
    """Values that take long to compute from runs, and that are asked for more than once.

    What a snapshot has of a complete run never changes: what is added later, it does not see. Of
    such runs a value is computed once. Of a run that is still being written nothing is kept. A
    :class:`Database` has a memo of its own, so that what is kept goes when it is closed.

    Examples
    --------
    >>> memo = Memo()
    >>> memo.of_runs([run], ("tokens", "clean"), count_tokens)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[str, ...], Hashable], Any] = {}

    def of_runs(
        self,
        runs: Sequence[RunSnapshot],
        what: Hashable,
        compute: Callable[[], T],
        is_small: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """Return what ``compute`` returns, or what it returned before.

        Parameters
        ----------
        runs
            The runs that the value is of, in an order that it may depend on.
        what
            Names the value, with all that it depends on beside the runs.
        compute
            Computes it. As all who ask are given the same object, it must be one that nobody
            changes, such as a tuple.
        is_small
            Whether the value is small enough to be kept; each is, unless given.
        """
        key = tuple(run.run_id for run in runs), what
        if key in self._kept:
            kept: T = self._kept[key]
            return kept
        value = compute()
        if all(run.is_complete for run in runs) and is_small(value):
            self._kept[key] = value
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
