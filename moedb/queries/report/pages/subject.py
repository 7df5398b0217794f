"""What a page is about: a run, with another one beside it where two are compared."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.reading.run_contents import RunContents

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.queries.database import Database
    from moedb.store.reading.snapshot import RunSnapshot


@dataclass(frozen=True)
class Subject:
    """A run of a store, and how it is asked.

    Attributes
    ----------
    database
        The store.
    run
        The run.
    run_b
        A run over the same tokens, to be held against it; None for none.
    resampling
        How the intervals of named queries are found; None for none.
    """

    database: "Database"
    run: "RunSnapshot"
    run_b: "RunSnapshot | None" = None
    resampling: "Resampling | None" = None

    @cached_property
    def resampled(self) -> "Database":
        """The database that gives intervals, where they are wanted."""
        if self.resampling is None:
            return self.database
        return self.database.resampled(self.resampling)

    @cached_property
    def contents(self) -> RunContents:
        """What the run holds."""
        return RunContents(self.database, (self.run,))

    @property
    def layers(self) -> list[int]:
        """The MoE layers."""
        return [*self.contents.experts]


def subject_of(
    database: "Database",
    run: str | None = None,
    run_b: str | None = None,
    resampling: "Resampling | None" = None,
) -> Subject:
    """Return what a page is about.

    Parameters
    ----------
    database
        The store.
    run
        The run, or the beginning of its name; the newest complete one with routing when None.
    run_b
        A run over the same tokens; None for none.
    resampling
        How intervals are found; None for none.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    UsageError
        If a run holds no routing decisions, or both are the same one.
    """
    chosen = _newest(database) if run is None else database.snapshot.run(run)
    other = None if run_b is None else database.snapshot.run(run_b)
    for each in (chosen, other):
        if each is not None and not each.n_rows("routing"):
            parent = each.row["parent_run_id"]
            raise UsageError(
                f"run {each.title} holds no routing decisions",
                f"moedb report {parent} -o report.html" if parent else "moedb runs",
            )
    if other is not None and other.run_id == chosen.run_id:
        raise UsageError(f"run {chosen.title} is compared with itself", "name two runs: moedb runs")
    return Subject(database, chosen, other, resampling)


def _newest(database: "Database") -> "RunSnapshot":
    for each in database.snapshot.complete_runs():
        if each.n_rows("routing"):
            return each
    raise RunNotFoundError(
        f"no complete run with routing decisions in {database.snapshot.title}",
        "moedb capture qwen-ioi",
    )
