"""A Spark of one process's tests, and how its answers are held against DuckDB's."""

import math
import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from moedb.schemas.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Queries over few rows: to compile and to share them out takes longer than to compute them.
_QUICK = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def skip_without_spark(*more: str) -> None:
    """Skip where Spark cannot run; ``more`` are modules that are needed besides."""
    missing = [f"{name} is not installed" for name in ("pyspark", *more) if find_spec(name) is None]
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        missing.append("there is no Java")
    # where nothing but these tests runs, they shall run
    assert not missing or "MOEDB_EXPECT_SPARK" not in os.environ, missing
    if missing:
        pytest.skip(f"{' and '.join(missing)}: make test-spark")


def start_spark() -> "SparkSession":
    """A Spark with two cores of this machine, quick at small things."""
    skip_without_spark()
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-java-options '{QUICK_JAVA}' pyspark-shell"
    builder: Any = SparkSession.builder.master("local[2]")
    for key, value in _QUICK.items():
        builder = builder.config(key, value)
    session: SparkSession = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def frame_of(
    session: "SparkSession", connection: duckdb.DuckDBPyConnection, table: Table
) -> "DataFrame":
    """The rows of a table of a connection of ``synthetic.connect``."""
    schema = pa.schema([(c.name, pa.type_for_alias(c.type)) for c in table.columns])
    rows = connection.sql(f"from files.{table.name}").to_arrow_table()
    return session.createDataFrame(rows.cast(schema))


def assert_same_rows(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    """All the same, order included; what is computed in floating point within 1e-9."""
    assert len(found) == len(expected)
    for number, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        assert len(row) == len(wanted)
        for cell, value in zip(row, wanted, strict=True):
            assert _is_same(cell, value), f"row {number}: {row} is not {wanted}"


def _is_same(cell: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(cell, float):
        if math.isnan(value) or math.isnan(cell):
            return math.isnan(value) and math.isnan(cell)
        return math.isclose(cell, value, rel_tol=1e-9, abs_tol=1e-12)
    return type(cell) is type(value) and bool(cell == value)
