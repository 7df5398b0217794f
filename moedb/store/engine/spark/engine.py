"""Runs statements on Spark, with the tables and views of a snapshot."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from moedb.errors import SqlError
from moedb.schemas.tables import TABLES
from moedb.store.engine.spark.session import SparkSettings, expect_spark, open_session
from moedb.store.engine.spark.tables import SparkTables
from moedb.store.engine.table_files import TableFiles
from moedb.store.engine.views import view_definitions
from moedb.store.reading.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from moedb.store.engine.spark.dialect import Call

_WORD = re.compile(r"\w+")
_CREATED = re.compile(r"\A.*?\bcreate or replace view \w+ as\b", re.DOTALL)


class SparkEngine:
    """Spark over a snapshot; it starts, and defines a view, when that is first needed.

    Parameters
    ----------
    snapshot
        What is read.
    settings
        Which Spark.
    hashed
        The runs whose files are read against their hashes before a table is first read.
    """

    def __init__(
        self, snapshot: Snapshot, settings: SparkSettings, hashed: Collection[str] = ()
    ) -> None:
        expect_spark()
        self.settings = settings
        self._snapshot, self._hashed = snapshot, hashed
        self._tables = {table.name: table for table in TABLES}
        self._views = dict(view_definitions(snapshot.format, snapshot.chosen))
        self._relations = frozenset((*self._tables, *self._views))

    def close(self) -> None:
        """Forget the views; Spark itself goes on for others of this process."""
        if "_session" not in self.__dict__:
            return
        for name in self._relations - self._tables.keys() - self._views.keys():
            self._session.catalog.dropTempView(name)
        if self.settings.remote is not None:
            self._session.stop()
        del self.__dict__["_session"]

    def run(
        self, statement: str, parameters: Mapping[str, object], calls: "Sequence[Call]" = ()
    ) -> "pa.Table":
        """Run a statement of DuckDB's SQL; its rows come to this process.

        Parameters
        ----------
        statement
            One that DuckDB has found to read, with names that it knows.
        parameters
            The values of its ``$name``.
        calls
            The named queries that it calls as macros, in the order of the text.

        Raises
        ------
        SqlError
            If Spark cannot run it.
        SqlRefusedError
            If it names what is no table or view of the store.
        StoreDamagedError, StoreError
            If a file that it reads is not what was committed, or is gone.
        """
        from pyspark.errors import PySparkException

        from moedb.store.engine.spark.dialect import spark_sql

        text = spark_sql(statement, self._relations, calls)
        try:
            self._define(_words(text))
            args = {name: value for name, value in parameters.items() if f":{name}" in text}
            found: pa.Table = self._session.sql(text, args=args).toArrow()
        except PySparkException as error:
            raise SqlError(f"Spark: {_told(error)}") from error
        return found

    @cached_property
    def _session(self) -> "SparkSession":
        return open_session(self.settings)

    @cached_property
    def _source(self) -> SparkTables:
        return SparkTables(self._session, self._snapshot, TableFiles(self._snapshot, self._hashed))

    def _define(self, names: Collection[str]) -> None:
        """Define the views that are named, and those that they name."""
        from moedb.store.engine.spark.dialect import spark_sql

        for name in [name for name in self._tables if name in names]:
            self._source.create(self._tables[name])
            del self._tables[name]
        for name in [name for name in self._views if name in names]:
            definition = self._views.pop(name, None)
            if definition is None:
                continue
            body = spark_sql(_CREATED.sub("", definition))
            self._define(_words(body))
            self._session.sql(f"create or replace temporary view {name} as {body}")


def _words(sql: str) -> frozenset[str]:
    return frozenset(_WORD.findall(sql.lower()))


def _told(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
