"""Runs statements over a snapshot, with counted decisions in the place of views."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import duckdb

from moedb.errors import SqlError, SqlRefusedError
from moedb.queries.counting.stand_ins import COUNTED, Count, StandIns, counts_of
from moedb.queries.reading.arrays.functions import ArrayFunctions
from moedb.store.engine.connection import open_engine
from moedb.store.engine.duckdb_errors import explain_error, explain_missing_file
from moedb.store.engine.execution import run_interruptibly
from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    from moedb.queries.reading.arrays.functions import OpenArray
    from moedb.queries.reading.memo import Memo
    from moedb.queries.reading.references import SplitSizes
    from moedb.queries.reading.sources.sql_sources import BoundCall
    from moedb.store.engine.spark.engine import SparkEngine
    from moedb.store.engine.spark.macros import Call
    from moedb.store.engine.spark.settings import SparkSettings
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
    open_array
        Opens an array, for the functions of SQL that read them.
    spark
        The Spark that answers questions; None for DuckDB.

    Attributes
    ----------
    connection
        The connection.
    views
        Its views, each defined once it is needed.
    functions
        Its functions that read arrays, likewise.
    """

    def __init__(
        self,
        snapshot: "Snapshot",
        memo: "Memo",
        hashed: Collection[str],
        splits: "Callable[[], SplitSizes]",
        open_array: "OpenArray",
        spark: "SparkSettings | None" = None,
    ) -> None:
        self.connection: duckdb.DuckDBPyConnection
        self.views: Views
        self.connection, self.views = open_engine(snapshot, hashed)
        self._snapshot, self._hashed = snapshot, hashed
        self.functions = ArrayFunctions(self.connection, open_array)
        self._memo = memo
        self._splits = splits
        self._spark_settings = spark
        self._rows_kept: dict[str, str] = {}
        self._spark_answers: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self.functions.close()
        self.connection.close()
        if "_spark" in self.__dict__:
            self._spark.close()

    def run(self, statement: str, parameters: Mapping[str, object]) -> duckdb.DuckDBPyRelation:
        """Run a statement; the views and functions that it names are defined first.

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
            self.functions.define(statement)
            # with parameters, and for some statements, DuckDB runs it here
            return run_interruptibly(
                self.connection, lambda: self.connection.sql(statement, params=params)
            )

    def answer(
        self,
        statement: str,
        parameters: Mapping[str, object],
        counts: Sequence[Count],
        calls: "Sequence[BoundCall]" = (),
    ) -> duckdb.DuckDBPyRelation:
        """Run a question: on Spark, or here with counted decisions in the place of views.

        Raises
        ------
        SqlError
            If it cannot be run.
        StoreError
            If a file that it reads is gone or damaged.
        """
        if self._spark_settings is None:
            return self.run_counted(statement, parameters, counts)
        key = repr((statement, sorted(parameters.items())))
        if key not in self._spark_answers:
            described = self.run(f"describe {statement}", parameters).fetchall()
            found = self._spark.run(statement, parameters, _as_macros(calls))
            name = f"moedb_spark_{len(self._spark_answers)}"
            # two may have one name, which a table cannot
            columns = [f"c{number}" for number in range(len(described))]
            cells = ", ".join(
                f"cast({column} as {sql_type}) as {column}"
                for column, (_, sql_type, *_) in zip(columns, described, strict=True)
            )
            self.connection.register("moedb_answer", found.rename_columns(columns))
            try:
                made = f"create temp table {name} as select {cells} from moedb_answer"  # noqa: S608
                self.connection.execute(made)
            finally:
                self.connection.unregister("moedb_answer")
            named = ", ".join(
                f"{column} as {quoted(str(title))}"
                for column, (title, *_) in zip(columns, described, strict=True)
            )
            self._spark_answers[key] = f"select {named} from temp.{name}"  # noqa: S608
        return self.run(self._spark_answers[key], {})

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
    def _spark(self) -> "SparkEngine":
        from moedb.store.engine.spark.engine import SparkEngine

        settings = self._spark_settings
        assert settings is not None  # noqa: S101
        return SparkEngine(self._snapshot, settings, self._token_keys, self._hashed)

    def _token_keys(self) -> list[str]:
        found = self.run("select distinct key from token_labels order by key", {})
        return [str(key) for (key,) in found.fetchall()]

    @cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns(self.connection, self.views, self._snapshot, self._memo, self._splits)


def _as_macros(calls: "Sequence[BoundCall]") -> "list[Call]":
    from moedb.store.engine.spark.macros import Call

    return [
        Call(
            call.query.macro_name,
            call.query.sql,
            call.values,
            call.arguments,
            call.query.positional,
        )
        for call in calls
    ]


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
        raise explain_error(error) or SqlError(str(error)) from error
