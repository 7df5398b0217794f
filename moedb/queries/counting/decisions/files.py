"""Opening files of a snapshot, and working on several of their parts at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moedb.errors import StoreDamagedError
from moedb.queries.counting.decisions.workspace import scratch
from moedb.store.engine.duckdb_errors import file_is_gone
from moedb.store.engine.execution import stop_if_asked

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

T = TypeVar("T")

_MOST_THREADS = 8
"""More would hold more stretches in memory, and wait for the same memory bus."""


@contextmanager
def opened(path: Path, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; ``metadata`` is its footer where that has been read before.

    Raises
    ------
    StoreError
        If the file is gone, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, metadata=metadata) as file:
            yield file
    except FileNotFoundError as error:
        raise file_is_gone(path) from error
    except (OSError, pa.ArrowException) as error:
        raise StoreDamagedError(f"{path} cannot be read: {error}", "moedb verify") from error


def column_of(table: pa.Table, name: str) -> NDArray[Any]:
    """One column as an array, of which this thread keeps one for each name."""
    import numpy as np

    chunks: list[NDArray[Any]] = [chunk.to_numpy() for chunk in table[name].chunks]
    if len(chunks) == 1:
        return chunks[0]
    dtype = table.schema.field(name).type.to_pandas_dtype()
    found = scratch(name, (table.num_rows,), dtype)
    return np.concatenate(chunks, out=found) if chunks else found


def side_by_side(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Run tasks on as many threads as there are cores; yield their results in order.

    Only a few run ahead of the result that is yielded, so that few are in memory.
    """
    workers = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, "moedb-count") as pool:
        pending: deque[Future[T]] = deque()
        try:
            for task in tasks:
                # a thread begins without the variables of the one that started it
                pending.append(pool.submit(copy_context().run, task))
                stop_if_asked()
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
