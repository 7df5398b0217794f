"""Parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moedb.errors import DatasetError

ROWS_READ = 256
"""Rows that are decoded at a time."""


def parquet_columns(path: Path) -> tuple[str, ...]:
    """The file's columns.

    Raises
    ------
    DatasetError
        If it is damaged, or no Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            return tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read rows: where each stands, and its values.

    Raises
    ------
    DatasetError
        If the file is damaged.
    """
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            names = [name for name in file.schema_arrow.names if name in set(columns)]
            for batch in file.iter_batches(ROWS_READ, columns=names, use_threads=False):
                for values in batch.to_pylist():
                    yield f"{path.name}, row {number}", values
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DatasetError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return DatasetError(
        f"{path} is damaged, or not Parquet: {reason}", "write it again, or get it again"
    )
