"""Writing the tables as Parquet."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moedb.schemas.tables import Table

ROW_GROUP_ROWS = 524_288
PAGE_BYTES = 8 << 20
"""As good as a row group's: tokens come again at every layer, and zstd sees that in one page."""
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 6

_ARROW_TYPES: dict[str, pa.DataType] = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}

Columns = Mapping[str, Any]
"""For each column but ``run_id`` its values: a numpy array or a sequence, None for null."""


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of ``table``."""
    return pa.schema(
        [
            pa.field(column.name, _ARROW_TYPES[column.type], nullable=column.nullable)
            for column in table.columns
        ]
    )


def arrow_table(table: Table, run_id: str, columns: Columns) -> pa.Table:
    """Build the rows of ``table`` in its sort order.

    Parameters
    ----------
    table
        The table.
    run_id
        Goes into the first column of every row.
    columns
        The other columns. All must be there, of equal length.

    Raises
    ------
    ValueError
        If a column is missing or unknown, lengths differ, or a null stands where none may.
    """
    expected = set(table.column_names) - {"run_id"}
    if set(columns) != expected:
        raise ValueError(
            f"{table.name}: expected columns {sorted(expected)}, got {sorted(columns)}"
        )
    n_rows = len(next(iter(columns.values())))
    schema = arrow_schema(table)
    arrays = []
    for field in schema:
        if field.name == "run_id":
            arrays.append(pa.array([run_id] * n_rows, pa.string()))
            continue
        values = columns[field.name]
        array = pa.array(values, field.type)
        if len(array) != n_rows:
            raise ValueError(f"{table.name}.{field.name}: expected {n_rows} rows, got {len(array)}")
        if array.null_count and not field.nullable:
            raise ValueError(f"{table.name}.{field.name}: null where none is allowed")
        arrays.append(array)
    return in_order(pa.Table.from_arrays(arrays, schema=schema), table)


def in_order(rows: pa.Table, table: Table) -> pa.Table:
    """Rows of ``table`` in its sort order, nulls last, and of its types."""
    plain = rows.cast(arrow_schema(table))
    keys = [(name, "ascending") for name in table.sort_by]
    return plain.take(pc.sort_indices(plain, sort_keys=keys))


def write_parquet(path: Path, table: Table, rows: pa.Table) -> None:
    """Write ``rows`` of ``table`` to ``path``."""
    write_stretches(path, table, [rows])


def write_stretches(path: Path, table: Table, stretches: Iterable[pa.Table]) -> int:
    """Write rows of ``table`` to ``path`` as they come; each stretch begins a row group.

    Returns
    -------
    int
        How many rows were written.
    """
    encodings = {
        **dict.fromkeys(table.byte_stream_split, "BYTE_STREAM_SPLIT"),
        **dict.fromkeys(table.delta, "DELTA_BINARY_PACKED"),
    }
    schema = arrow_schema(table)
    known = inspect.signature(pq.ParquetWriter.__init__).parameters
    # earlier versions have no such limit
    pages = {"max_rows_per_page": ROW_GROUP_ROWS} if "max_rows_per_page" in known else {}
    n_rows = 0
    with pq.ParquetWriter(
        path,
        schema,
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=[name for name in schema.names if name not in encodings],
        column_encoding=encodings,
        data_page_size=PAGE_BYTES,
        write_statistics=True,
        **pages,
    ) as writer:
        for rows in stretches:
            writer.write_table(rows.cast(schema), row_group_size=ROW_GROUP_ROWS)
            n_rows += len(rows)
    return n_rows


def column_lists(rows: Sequence[Mapping[str, Any]], table: Table) -> dict[str, list[Any]]:
    """Turn rows (dicts) into the columns that :func:`arrow_table` takes."""
    names = [name for name in table.column_names if name != "run_id"]
    return {name: [row.get(name) for row in rows] for name in names}
