"""A Spark session: on this machine, on a cluster, or over Spark Connect."""

import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL = "local[*]"
"""All cores of this machine."""

# What the answers depend on: DuckDB gives null for what it cannot compute, and knows UTC alone.
_MEANING = {"spark.sql.ansi.enabled": "false", "spark.sql.session.timeZone": "UTC"}
# What a session that is started here has besides, unless the user's configuration says otherwise.
_STARTED = {
    "spark.app.name": "moedb",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}


@dataclass(frozen=True)
class SparkSettings:
    """Which Spark runs the SQL.

    Attributes
    ----------
    master
        The address of a cluster's master, or ``local[N]``: N cores of this machine. Without this
        and ``remote`` it is what Spark's own configuration says, else ``local[*]``.
    remote
        The address of a Spark Connect server: ``sc://HOST:PORT``.
    """

    master: str | None = None
    remote: str | None = None

    def __post_init__(self) -> None:
        """Check them.

        Raises
        ------
        UsageError
            If both are given, or the second is no address of Spark Connect.
        """
        if self.master is not None and self.remote is not None:
            raise UsageError("master and remote are both given: one Spark runs the SQL")
        if self.remote is not None and not self.remote.startswith("sc://"):
            raise UsageError(
                f"remote {self.remote!r}: expected the address of a Spark Connect server",
                "--remote sc://HOST:15002",
            )

    @property
    def title(self) -> str:
        """What provenance calls it; tokens in an address are left out."""
        place = self.remote or self.master or "its default master"
        return place.partition(";")[0]


def expect_spark() -> None:
    """Check that what Spark needs of Python is installed.

    Raises
    ------
    UsageError
        If it is not.
    """
    missing = [name for name in ("pyspark", "sqlglot") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the engine spark needs {' and '.join(missing)}, which is not installed",
            "pip install 'moedb[spark]'",
        )


def open_session(settings: SparkSettings) -> "SparkSession":
    """Start Spark, or reach it, and return a session with views of its own.

    Raises
    ------
    UsageError
        If Java is missing, or Spark cannot be started or reached.
    """
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    for key, value in _STARTED.items():
        builder = builder.config(key, value)
    try:
        if settings.remote is not None:
            session = builder.remote(settings.remote).create()
        else:
            session = _started(builder, settings.master).newSession()
            # what it logs of an error is in the error
            logging.getLogger("SQLQueryContextLogger").disabled = True
        for key, value in _MEANING.items():
            session.conf.set(key, value)
    except (PySparkException, RuntimeError, OSError, ValueError) as error:
        raise UsageError(
            f"Spark at {settings.title} cannot be started or reached: {_first_line(error)}",
            "Spark 4 needs Java 17 or newer (JAVA_HOME); of a server see the address",
        ) from error
    found: SparkSession = session
    return found


def _started(builder: Any, master: str | None) -> Any:
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        have = running.sparkContext.master
        if master is not None and master != have:
            raise UsageError(f"Spark runs in this process with the master {have!r} already")
        return running
    from pyspark import SparkConf

    if master is not None:
        builder = builder.master(master)
    elif not SparkConf().contains("spark.master"):
        master, builder = LOCAL, builder.master(LOCAL)
    if master is not None and master.startswith("local"):
        for key in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(key, "127.0.0.1")
    return builder.getOrCreate()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
