"""Tables as Parquet, with the column types of the result and its provenance."""

import io
import json
from typing import TYPE_CHECKING

from moedb.queries.results.cells import plain_text
from moedb.queries.results.conversions import NOT_IN_PARQUET, NOT_IN_PYTHON
from moedb.queries.results.sheets import Sheet

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_bytes(sheet: Sheet) -> bytes:
    """Return a sheet as a file of Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    metadata = {b"moedb": json.dumps(sheet.source.provenance.to_dict(), sort_keys=True).encode()}
    table = _arrow_table(sheet).replace_schema_metadata(metadata)
    for position, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type) and column.type.scale == 0:
            # sums of integers are HUGEINT in DuckDB, which few engines read
            try:
                narrow = table.column(position).cast(pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(position, column.name, narrow)
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _arrow_table(sheet: Sheet) -> "pa.Table":
    import pyarrow as pa

    if sheet.spanner is None:
        table = sheet.source.as_text(NOT_IN_PARQUET).limit(len(sheet.rows)).arrow()
        names = [column.name for column in sheet.columns]
        return table.select([column.source for column in sheet.columns]).rename_columns(names)
    schema = sheet.source.as_text(NOT_IN_PYTHON | NOT_IN_PARQUET).limit(0).arrow().schema
    arrays = []
    for position, column in enumerate(sheet.columns):
        values, kind = [row[position] for row in sheet.rows], schema.field(column.source).type
        if pa.types.is_string(kind):
            values = [None if value is None else plain_text(value) for value in values]
        arrays.append(pa.array(values, type=kind))
    return pa.Table.from_arrays(arrays, names=[column.name for column in sheet.columns])
