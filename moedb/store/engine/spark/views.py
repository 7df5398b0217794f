"""The tables and views of a store as Spark's temporary views, defined once they are needed."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from moedb.schemas.tables import TABLES, Table
from moedb.store.engine.spark.dialect import in_steps

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_WORD = re.compile(r"\w+")
_CREATED = re.compile(r"\A.*?\bcreate or replace view \w+ as\b", re.DOTALL)


class SparkViews:
    """Makes the views of a session.

    Parameters
    ----------
    session
        Where they are made.
    definitions
        DuckDB's SQL that defines each view, by name.
    frame_of
        Returns the rows of a table.
    """

    def __init__(
        self,
        session: "SparkSession",
        definitions: Mapping[str, str],
        frame_of: "Callable[[Table], DataFrame]",
    ) -> None:
        self._session, self._frame_of = session, frame_of
        self._tables = {table.name: table for table in TABLES}
        self._definitions = dict(definitions)
        self._made: list[str] = []
        self._kept: list[DataFrame] = []

    def define(self, sql: str) -> None:
        """Define the views that some SQL names, and those that they name."""
        names = frozenset(_WORD.findall(sql.lower()))
        for name in _named(self._tables, names):
            self._make(name, self._frame_of(self._tables[name]))
            del self._tables[name]
        for name in _named(self._definitions, names):
            definition = self._definitions.pop(name, None)
            if definition is None:
                continue
            try:
                self._define_view(name, _CREATED.sub("", definition))
            except BaseException:
                self._definitions[name] = definition
                raise

    def drop(self) -> None:
        """Drop what was made."""
        for name in self._made:
            self._session.catalog.dropTempView(name)
        self._made.clear()
        self._kept.clear()

    def _define_view(self, name: str, definition: str) -> None:
        *steps, (_, body) = in_steps(definition, name)
        for step, sql in steps:
            self.define(sql)
            # what a view reads several times is computed once: Spark would do it each time
            kept = self._session.sql(sql).localCheckpoint()
            self._make(step, kept)
            self._kept.append(kept)  # a server forgets it where nobody has it
        self.define(body)
        # of a frame, as Spark analyses a view that SQL makes each time that it is named
        self._make(name, self._session.sql(body))

    def _make(self, name: str, frame: "DataFrame") -> None:
        frame.createOrReplaceTempView(name)
        self._made.append(name)


def _named(known: Collection[str], names: Collection[str]) -> list[str]:
    return [name for name in known if name in names]
