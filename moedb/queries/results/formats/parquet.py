"""Tables as Parquet, with the column types of the result and its provenance."""

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING

from moedb.queries.results.cells import plain_text
from moedb.queries.results.result import Result
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import Sheet
from moedb.queries.results.values.conversions import NOT_IN_PARQUET, NOT_IN_PYTHON

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_OF_GROUP = 2**20
_PIECE = 2**20
_INT64 = range(-(2**63), 2**63)


def parquet_bytes(sheet: Sheet) -> bytes:
    """Return a sheet as a file of Parquet."""
    import pyarrow as pa

    table = _arrow_table(sheet)

    def fits(position: int) -> bool:
        try:
            table.column(position).cast(pa.int64())
        except pa.ArrowInvalid:
            return False
        return True

    buffer = io.BytesIO()
    _write(buffer, sheet.source, _narrowed(table.schema, fits), [table])
    return buffer.getvalue()


def parquet_pieces(stream: RowStream) -> Iterator[bytes]:
    """Give the rows of a stream as a file of Parquet, in pieces, once the last row was read."""
    import pyarrow as pa

    plain = RowStream(stream.source.as_text(NOT_IN_PARQUET), stream.limit)
    schema = plain.source.limit(0).arrow().schema
    tables = (pa.Table.from_batches([batch]) for batch in plain.arrow())
    narrowed = _narrowed(schema, lambda position: _fits(plain.source, position))
    with tempfile.TemporaryFile() as file:
        _write(file, stream.source, narrowed, tables)
        stream.n_rows, stream.truncated = plain.n_rows, plain.truncated
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece


def _write(
    file: IO[bytes], source: Result, schema: "pa.Schema", tables: "Iterable[pa.Table]"
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = json.dumps(source.provenance.to_dict(), sort_keys=True).encode()
    empty = schema.empty_table()
    waiting = [empty]
    with pq.ParquetWriter(
        file, schema.with_metadata({b"moedb": record}), compression="zstd"
    ) as writer:
        for table in tables:
            waiting.append(table.rename_columns(schema.names).cast(schema))
            if sum(each.num_rows for each in waiting) > _ROWS_OF_GROUP:
                rows = pa.concat_tables(waiting)
                writer.write_table(rows.slice(0, _ROWS_OF_GROUP))
                waiting = [empty, rows.slice(_ROWS_OF_GROUP)]
        writer.write_table(pa.concat_tables(waiting))


def _narrowed(schema: "pa.Schema", fits: Callable[[int], bool]) -> "pa.Schema":
    """A schema with int64 where a column holds whole numbers that fit.

    Sums of integers are HUGEINT in DuckDB, which few engines read.
    """
    import pyarrow as pa

    for position, column in enumerate(schema):
        is_whole = pa.types.is_decimal(column.type) and column.type.scale == 0
        if is_whole and fits(position):
            schema = schema.set(position, column.with_type(pa.int64()))
    return schema.remove_metadata()


def _fits(result: Result, position: int) -> bool:
    """Whether the numbers of a column of a result fit into 64 bits."""
    found = result.project(f"#{position + 1} as number").aggregate("min(number), max(number)")
    return all(number is None or int(number) in _INT64 for number in found.fetchall()[0])


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
