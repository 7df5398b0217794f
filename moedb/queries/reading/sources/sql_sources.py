"""Which runs and splits the rows of a SQL statement are from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from moedb.queries.questions.macros import describe_macro
from moedb.queries.questions.parameters import Value
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.reading.references import SplitSizes, narrowed, references
from moedb.queries.reading.sources.plan_reading import UNKNOWN_SPLIT, Planner, names_a_relation
from moedb.queries.reading.sources.statement import Statement
from moedb.queries.results.result import RUNS_NAMED, RunReference
from moedb.schemas.tables import RUNS
from moedb.store.reading.snapshot import Snapshot


@dataclass(frozen=True)
class BoundCall:
    """A macro call with the values that its query runs with.

    Attributes
    ----------
    query
        The named query.
    values
        For each parameter its value, runs by their whole names; without those that the statement
        computes.
    runs
        The runs it reads; None where the statement computes which.
    default_run
        The run among them that was taken as none was named.
    arguments
        The constants that the statement gives, as they stand there.
    """

    query: NamedQuery
    values: Mapping[str, Value]
    runs: Sequence[str] | None
    default_run: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """Where the rows of a statement are from.

    Attributes
    ----------
    runs
        The runs, with the splits that are read.
    certain
        Whether all of these are read; False where any of them may be.
    """

    runs: tuple[RunReference, ...]
    certain: bool


class SourceFinder:
    """Finds the sources of statements over one snapshot.

    Parameters
    ----------
    snapshot
        What is read.
    connection
        A connection to it that has the macros.
    counts
        Counts the examples of each split of each run.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        connection: duckdb.DuckDBPyConnection,
        counts: Callable[[], SplitSizes],
    ) -> None:
        self._snapshot = snapshot
        self._connection = connection
        self._counts = counts
        self._planner: Planner | None = None

    def close(self) -> None:
        """Close the planner, if there is one."""
        if self._planner is not None:
            self._planner.close()
            self._planner = None

    def find(
        self,
        sql: str,
        parameters: Mapping[str, object],
        statement: Statement,
        calls: Iterable[BoundCall],
    ) -> Sources:
        """Return where the rows of a statement are from.

        Parameters
        ----------
        sql
            The statement.
        parameters
            The values of its parameters.
        statement
            What was found in it.
        calls
            Its macro calls.
        """
        certain = statement.calls is not None and not statement.computes_array_runs
        found: dict[str, tuple[str, ...] | None] = {}
        every_run = sorted(self._snapshot.runs)
        for call in calls:
            certain = certain and call.runs is not None
            for run in self._references(every_run if call.runs is None else call.runs):
                if "split" in call.values:
                    run = narrowed(run, call.values["split"])
                _add(found, run.run_id, run.splits_read)
        for named in statement.array_runs:
            _add(found, self._snapshot.run(named).run_id, None)
        if not certain:
            found = dict.fromkeys(every_run, None)
        else:
            certain = self._add_tables(found, sql, parameters, statement)
        runs = self._references(found)
        return Sources(
            tuple(narrowed(run, "all", found[run.run_id]) for run in runs),
            certain or len(runs) <= 1,
        )

    def _references(self, run_ids: Iterable[str]) -> tuple[RunReference, ...]:
        return references(self._snapshot, run_ids, self._counts)

    def _add_tables(
        self,
        found: dict[str, tuple[str, ...] | None],
        sql: str,
        parameters: Mapping[str, object],
        statement: Statement,
    ) -> bool:
        """Add what is read of tables and views; return whether it is certain that it is read."""
        if not names_a_relation(sql):
            return True
        planner = self._planner = self._planner or self._new_planner()
        try:
            for call in statement.calls or ():
                columns = describe_macro(self._connection, call.query)
                planner.define(call.query.macro_name, call.query.positional, columns)
            reads = planner.reads(sql, parameters, statement)
        except duckdb.Error:  # what cannot be planned so may read anything
            found.update(dict.fromkeys(sorted(self._snapshot.runs), None))
            return False
        for run_id, read in reads.items():
            if read.splits is not None:
                known = None if UNKNOWN_SPLIT in read.splits else tuple(sorted(read.splits))
                _add(found, run_id, known)
            else:
                found.setdefault(run_id, None)
        # the rows of ``runs`` are the runs themselves
        others = [run_id for run_id, read in reads.items() if read.tables != {RUNS.name}]
        return len(others) <= 1

    def _new_planner(self) -> Planner:
        newest = self._snapshot.newest_complete()
        return Planner(
            {run_id: run.row for run_id, run in sorted(self._snapshot.runs.items())},
            self._counts() if len(self._snapshot.runs) <= RUNS_NAMED else {},
            None if newest is None else newest.run_id,
        )


def _add(
    found: dict[str, tuple[str, ...] | None], run_id: str, splits: tuple[str, ...] | None
) -> None:
    before = found.get(run_id, ())
    found[run_id] = None if splits is None or before is None else tuple({*before, *splits})
