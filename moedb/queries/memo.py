"""What was computed from complete runs, kept while a database is open."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from moedb.store.snapshot import RunSnapshot

T = TypeVar("T")


class Memo:
    """Values that take long to compute from a run, and that several analyses ask for.

    A complete run never changes: its last unit is committed, and no writer touches it again. Of
    such a run a value is computed once. Of a run that is still being written nothing is kept. A
    :class:`Database` has a memo of its own, so that what is kept goes when it is closed.

    Examples
    --------
    >>> memo = Memo()
    >>> memo.of_run(run, ("tokens", "clean"), count_tokens)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Hashable], Any] = {}

    def of_run(self, run: RunSnapshot, what: Hashable, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns, or what it returned before.

        Parameters
        ----------
        run
            The run that the value is of.
        what
            Names the value, with all that it depends on beside the run.
        compute
            Computes it. As all who ask are given the same object, it must be one that nobody
            changes, such as a tuple.
        """
        if not run.is_complete:
            return compute()
        key = run.run_id, what
        if key not in self._kept:
            self._kept[key] = compute()
        kept: T = self._kept[key]
        return kept

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
