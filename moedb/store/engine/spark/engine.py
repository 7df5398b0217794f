"""Runs statements on Spark, with the tables and views of a snapshot."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from moedb.errors import MoedbError, SqlError, StoreError
from moedb.schemas.tables import TABLES
from moedb.store.engine.spark.session import expect_spark, open_session
from moedb.store.engine.spark.settings import SparkSettings
from moedb.store.engine.spark.tables import SparkTables
from moedb.store.engine.table_files import TableFiles
from moedb.store.engine.views import view_definitions
from moedb.store.reading.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from moedb.store.engine.spark.macros import Call
    from moedb.store.engine.spark.views import SparkViews

_NO_MEMORY = re.compile(r"OutOfMemoryError: *([^\n]*)")
_NO_FILE = ("PATH_NOT_FOUND", "FILE_NOT_EXIST", "FileNotFoundException")


class SparkEngine:
    """Spark over a snapshot; it starts when that is first needed.

    Parameters
    ----------
    snapshot
        What is read.
    settings
        Which Spark.
    token_keys
        Returns the keys of the labels of its tokens.
    hashed
        The runs whose files are read against their hashes before a table is first read.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SparkSettings,
        token_keys: Callable[[], Sequence[str]],
        hashed: Collection[str] = (),
    ) -> None:
        expect_spark(settings)
        self.settings = settings
        self._token_keys = token_keys
        self._snapshot, self._hashed = snapshot, hashed
        self._definitions = view_definitions(snapshot.format, snapshot.chosen)

    def close(self) -> None:
        """Forget the views; Spark itself goes on for others of this process."""
        if "_session" not in self.__dict__:
            return
        if self.settings.remote is not None:
            self._session.stop()
        elif "_views" in self.__dict__:
            self._views.drop()
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
            The named queries that it calls as macros.

        Raises
        ------
        SqlError
            If Spark cannot run it.
        SqlRefusedError
            If it names what is no table or view of the store.
        StoreDamagedError, StoreError
            If a file that it reads is not what was committed, or is gone.
        """
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        from moedb.store.engine.spark.dialect import parameters_of, spark_sql

        given = {name.lower(): value for name, value in parameters.items()}
        relations = {*self._definitions, *(table.name for table in TABLES)}
        text = spark_sql(statement, relations, calls, given)
        args = {name: given[name.lower()] for name in parameters_of(statement)}
        try:
            self._views.define(text)
            found: pa.Table = self._session.sql(text, args=args).toArrow()
        except KeyboardInterrupt:
            if self.settings.remote is not None:
                self._session.interruptAll()
            raise
        except (PySparkException, Py4JError) as error:
            # a job that Ctrl-C cancels fails, and that is what comes here
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            cause = None if self.settings.has_secrets else error
            raise self._explained(error) from cause
        return found

    @cached_property
    def _session(self) -> "SparkSession":
        runs = self._snapshot.runs.values()
        n_bytes = sum(entry.n_bytes for run in runs for entry in run.table_files())
        return open_session(self.settings, n_bytes)

    @cached_property
    def _views(self) -> "SparkViews":
        from moedb.store.engine.spark.views import SparkViews

        files = TableFiles(self._snapshot, self._hashed)
        tables = SparkTables(self._session, self._snapshot, files, self._token_keys)
        return SparkViews(self._session, self._definitions, tables.frame)

    def _explained(self, error: Exception) -> MoedbError:
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = self.settings.without_secrets(lines[0] if lines else type(error).__name__)
        if any(word in said for word in _NO_FILE):
            return StoreError(
                f"Spark does not find the store's files: {said}",
                f"every machine of Spark has to read {self._snapshot.title} under this path",
            )
        if (memory := _NO_MEMORY.search(str(error))) is not None:
            return SqlError(
                f"Spark has too little memory for it: {memory[1]}",
                'export PYSPARK_SUBMIT_ARGS="--driver-memory 8g pyspark-shell"',
            )
        return SqlError(f"Spark: {said}")
