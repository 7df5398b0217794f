"""A Spark session: on this machine, on a cluster, or over Spark Connect."""

import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from moedb.errors import UsageError
from moedb.store.engine.spark.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

LOCAL = "local[*]"
"""All cores of this machine."""

_PARTITIONS = "spark.sql.shuffle.partitions"
_PARTITION_BYTES = 4 << 20
"""Bytes of Parquet for each of them: decisions take ten times as much when they are shuffled."""

# What the answers depend on: what DuckDB refuses is refused, and times are in UTC.
_MEANING = {"spark.sql.ansi.enabled": "true", "spark.sql.session.timeZone": "UTC"}
# What a Spark that is started here has besides, unless its configuration says otherwise.
_STARTED = {
    "spark.app.name": "moedb",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    # by the bytes of the files, the counts of all examples would be handed to everybody
    "spark.sql.sources.fileCompressionFactor": "10.0",
    "spark.moedb.started": "true",
}
_STARTED_HERE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # to look at files is quicker than to share that out
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}


def expect_spark(settings: SparkSettings) -> None:
    """Check that what Spark needs of Python is installed.

    Raises
    ------
    UsageError
        If it is not.
    """
    expect_packages("pyspark", "sqlglot", *(["grpc", "grpc_status"] if settings.remote else []))


def expect_packages(*names: str) -> None:
    """Check that modules are installed that come with the extra ``spark``.

    Raises
    ------
    UsageError
        If they are not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the engine spark needs {' and '.join(missing)}, which is not installed",
            "pip install 'moedb[spark]'",
        )


_CONNECT_PORT = 15002
_PATIENCE = 20.0
"""Seconds in which a server of Spark Connect has to take a connection."""


def open_session(settings: SparkSettings, n_bytes: int = 0) -> "SparkSession":
    """Start Spark, or reach it, and return a session with views of its own.

    Parameters
    ----------
    settings
        Which Spark.
    n_bytes
        The size of what will be read.

    Raises
    ------
    UsageError
        If Java is missing, or Spark cannot be started or reached.
    """
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    # what it logs of an error is in the error
    logging.getLogger("SQLQueryContextLogger").disabled = True
    from pyspark.errors import PySparkException

    try:
        session = _remote(settings) if settings.remote is not None else _own(settings, n_bytes)
        for key, value in _MEANING.items():
            session.conf.set(key, value)
    except (PySparkException, RuntimeError, OSError, ValueError) as error:
        reason = settings.without_secrets(_first_line(error))
        raise UsageError(
            f"Spark at {settings.title} cannot be started or reached: {reason}", _remedy(settings)
        ) from (None if settings.has_secrets else error)
    found: SparkSession = session
    return found


def _remote(settings: SparkSettings) -> Any:
    from pyspark.sql import SparkSession

    # its client asks a server that is not there again for ten minutes
    place = urlsplit(settings.title)
    with socket.create_connection((place.hostname, place.port or _CONNECT_PORT), _PATIENCE):
        pass
    # its own messages of a server that cannot be reached say the same, many times
    logging.getLogger("pyspark.sql.connect.client").setLevel(logging.CRITICAL)
    return SparkSession.builder.remote(settings.remote).create()


def _own(settings: SparkSettings, n_bytes: int) -> Any:
    """A session of the Spark of this process, which is started where none runs."""
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        _expect_master(running, settings.master)
        session = running.newSession()
    else:
        session = _start(settings.master)
    if "connect" not in type(session).__module__:
        _share_out(session, n_bytes)
    return session


def _share_out(session: Any, n_bytes: int) -> None:
    """Choose into how many parts shuffles go, of a Spark on this machine that was started here."""
    context = session.sparkContext
    conf = context.getConf()
    is_ours = conf.contains("spark.moedb.started") and not conf.contains(_PARTITIONS)
    if is_ours and context.master.startswith("local"):
        n_partitions = max(2 * context.defaultParallelism, n_bytes // _PARTITION_BYTES)
        session.conf.set(_PARTITIONS, str(n_partitions))


def _expect_master(running: Any, master: str | None) -> None:
    # a session over Spark Connect has no context
    have = None if "connect" in type(running).__module__ else running.sparkContext.master
    if master is not None and master != have:
        raise UsageError(
            f"Spark runs in this process already, with the master {have or 'of Spark Connect'}, "
            f"not {master}",
            "leave the master out to use it, or stop it first",
        )


def _start(master: str | None) -> Any:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    with _startup_messages():
        # with the JVM there, its configuration is what Spark's files and options say
        SparkContext._ensure_initialized()
        conf = SparkConf()
        builder: Any = SparkSession.builder
        if master is None:
            master = conf.get("spark.master") or LOCAL
        defaults = _STARTED | (_STARTED_HERE if master.startswith("local") else {})
        for key, value in defaults.items():
            if not conf.contains(key):
                builder = builder.config(key, value)
        return builder.master(master).getOrCreate().newSession()


@contextmanager
def _startup_messages() -> Iterator[None]:
    """Keep what the JVM says on stderr from the terminal, and say it where it does not start."""
    if logger.isEnabledFor(logging.INFO):
        yield
        return
    with tempfile.TemporaryFile() as kept:
        try:
            with _stderr_in(kept):
                yield
        except Exception as error:
            kept.seek(0)
            lines = kept.read().decode(errors="replace").strip().splitlines()
            if not lines:
                raise
            raise RuntimeError(f"{_first_line(error)}; {lines[-1]}") from error


@contextmanager
def _stderr_in(file: IO[bytes]) -> Iterator[None]:
    sys.stderr.flush()
    own = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


def _remedy(settings: SparkSettings) -> str:
    if settings.remote is not None:
        return "is the address right, and does a Spark Connect server listen there?"
    return "Spark 4 needs Java 17 or newer: is java in PATH, or JAVA_HOME set? More with moedb -v"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
