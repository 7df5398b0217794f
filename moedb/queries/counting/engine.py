"""Runs statements over a snapshot, with counted decisions in the place of views."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import duckdb

from moedb.errors import SqlError, SqlRefusedError
from moedb.queries.counting.stand_ins import COUNTED, Count, StandIns, counts_of
from moedb.store.engine.connection import open_engine
from moedb.store.engine.execution import run_interruptibly
from moedb.store.engine.missing_files import explain_missing_file

if TYPE_CHECKING:
    from moedb.queries.reading.memo import Memo
    from moedb.queries.reading.references import SplitSizes
    from moedb.queries.reading.sources.sql_sources import BoundCall
    from moedb.store.engine.views import Views
    from moedb.store.reading.snapshot import Snapshot

_UNCOUNTED = COUNTED | {"explain", "describe", "summarize"}
"""Words of SQL that reads a counted view by its name, or that makes no table."""


class Engine:
    """A DuckDB connection over a snapshot, and what is counted for the statements that it runs.

    Parameters
    ----------
    snapshot
        What is read.
    memo
        Keeps counts for the next query.
    hashed
        The runs whose files are read against their hashes before a table is first read.
    splits
        Returns for each run the sizes of its splits.

    Attributes
    ----------
    connection
        The connection.
    views
        Its views, each defined once it is needed.
    """

    def __init__(
        self,
        snapshot: "Snapshot",
        memo: "Memo",
        hashed: Collection[str],
        splits: "Callable[[], SplitSizes]",
    ) -> None:
        self.connection: duckdb.DuckDBPyConnection
        self.views: Views
        self.connection, self.views = open_engine(snapshot, hashed)
        self._snapshot = snapshot
        self._memo = memo
        self._splits = splits
        self._rows_kept: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def run(self, statement: str, parameters: Mapping[str, object]) -> duckdb.DuckDBPyRelation:
        """Run a statement; the views that it names are defined first.

        Raises
        ------
        SqlError
            If DuckDB cannot run it, or refuses what it reaches for.
        StoreError
            If a file that it reads is gone or damaged.
        """
        params = dict(parameters) or None
        with errors_explained():
            self.views.define(statement)
            # with parameters, and for some statements, DuckDB runs it here
            return run_interruptibly(
                self.connection, lambda: self.connection.sql(statement, params=params)
            )

    def run_counted(
        self, statement: str, parameters: Mapping[str, object], counts: Sequence[Count]
    ) -> duckdb.DuckDBPyRelation:
        """Run a statement with counted decisions in the place of views; its rows are kept."""
        # counting reads files by itself, on a disk
        if not counts or self._snapshot.remote is not None:
            return self.run(statement, parameters)
        key = repr((statement, sorted(parameters.items())))
        if key not in self._rows_kept:
            name = f"moedb_rows_{len(self._rows_kept)}"
            with errors_explained(), self._stand_ins.standing(counts):
                self.run(f"create or replace temp table {name} as {statement}", parameters)
            self._rows_kept[key] = name
        return self.run(f"from temp.{self._rows_kept[key]}", {})

    def counts_of(
        self, statement: str, parameters: Mapping[str, object], calls: "Sequence[BoundCall]"
    ) -> list[Count]:
        """What the macros of a statement read of the counted views, if they alone do."""
        words = set(re.findall(r"\w+", statement.lower()))
        known = all(len(call.values) == len(call.query.parameters) for call in calls)
        if not known or not words.isdisjoint(_UNCOUNTED):
            return []
        counts = [count for call in calls for count in counts_of(call.query, call.values)]
        if counts:
            # a table could not keep two columns of one name
            described = self.run(f"describe {statement}", parameters).fetchall()
            names = [str(name).lower() for name, *_ in described]
            if len(set(names)) < len(names):
                return []
        return counts

    @cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns(self.connection, self.views, self._snapshot, self._memo, self._splits)


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn errors of DuckDB into ours."""
    try:
        yield
    except duckdb.PermissionException as error:
        if missing := explain_missing_file(error):
            raise missing from error
        raise SqlRefusedError(
            f"the SQL reaches outside the store, which is refused: {error}",
            "the tables are listed by: moedb schema",
        ) from error
    except duckdb.Error as error:
        raise explain_missing_file(error) or SqlError(str(error)) from error
