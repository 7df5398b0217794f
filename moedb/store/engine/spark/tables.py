"""The tables of a snapshot as Spark's frames."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moedb.schemas.tables import RUN_LABELS, RUNS, TOKEN_LABELS, Table
from moedb.store.engine.table_files import TableFiles
from moedb.store.reading.snapshot import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_S3 = re.compile(r"^s3://")
"""Which Spark calls ``s3a``: ``s3`` was another file system."""

_PATTERN = re.compile(r"([\[\]{}*?\\])")
"""What Spark takes for a pattern in a path."""

_MOST_KEYS = 100
"""Keys of labels that are told Spark at most."""

_TYPES = {"int32": "int", "int64": "bigint", "float": "float", "double": "double"}


class SparkTables:
    """Makes the frames, each over an explicit list of files.

    Parameters
    ----------
    session
        Where they are made.
    snapshot, files
        What is read, and its files.
    token_keys
        Returns the keys of the labels of its tokens.
    """

    def __init__(
        self,
        session: "SparkSession",
        snapshot: Snapshot,
        files: TableFiles,
        token_keys: Callable[[], Sequence[str]],
    ) -> None:
        self._session, self._snapshot, self._files = session, snapshot, files
        self._token_keys = token_keys

    def frame(self, table: Table) -> "DataFrame":
        """The rows of a table.

        Raises
        ------
        StoreDamagedError, StoreError
            If a file is not what was committed, or is gone.
        """
        if table is RUNS:
            return self._given(table, [run.row for run in self._snapshot.runs.values()])
        frame = self._read(table)
        if table is RUN_LABELS:
            frame = frame.unionByName(self._given(table, self._names()))
        if table is TOKEN_LABELS:
            frame = self._of_known_keys(frame)
        return frame

    def _of_known_keys(self, frame: "DataFrame") -> "DataFrame":
        """All rows; where a question's key is none of theirs Spark knows it before it runs.

        Then it leaves out what would be joined with them, such as all decisions. It puts the key
        into comparisons with ``=`` alone, not into ``in``.
        """
        from sqlglot import exp

        keys = self._token_keys()
        if not 0 < len(keys) <= _MOST_KEYS:
            return frame
        texts = (exp.Literal.string(key).sql("spark") for key in keys)
        return frame.filter(" or ".join(f"`key` = {text}" for text in texts))

    def _read(self, table: Table) -> "DataFrame":
        files = self._files.of_table(table.name)
        if not files:
            return self._given(table, [])
        # a schema that is given spares Spark the footers
        stored = [c for c in table.columns if c.since <= self._snapshot.format]
        schema = ", ".join(f"`{c.name}` {_spark_type(c.type)}" for c in stored)
        names = [_PATTERN.sub(r"\\\1", _S3.sub("s3a://", name)) for name in files]
        frame = self._session.read.schema(schema).parquet(*names)
        return frame.selectExpr(
            *(
                f"cast({f'`{c.name}`' if c in stored else 'null'} as {_spark_type(c.type)})"
                f" as `{c.name}`"
                for c in table.columns
            )
        )

    def _given(self, table: Table, rows: list[dict[str, Any]]) -> "DataFrame":
        import pyarrow as pa

        if not rows:
            nulls = (f"cast(null as {_spark_type(c.type)}) as `{c.name}`" for c in table.columns)
            return self._session.sql(f"select {', '.join(nulls)} where false")
        # of Arrow, as Spark's optimizer then sees that there are few
        schema = pa.schema([(c.name, pa.type_for_alias(c.type)) for c in table.columns])
        return self._session.createDataFrame(pa.Table.from_pylist(rows, schema=schema))

    def _names(self) -> list[dict[str, Any]]:
        return [
            {"run_id": run.run_id, "key": key, "value": value}
            for run in self._snapshot.runs.values()
            for key, value in run.named.labels.items()
        ]


def _spark_type(kind: str) -> str:
    return _TYPES.get(kind, kind)
