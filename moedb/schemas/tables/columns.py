"""What a table and a column are, and the columns that many tables have."""

from dataclasses import dataclass
from typing import Literal

FORMAT_MAJOR = 2
"""Major version of the store's format."""

ColumnType = Literal["int32", "int64", "float", "double", "string"]
Precision = Literal["full", "norm", "statistic"]

SQL_TYPES: dict[str, str] = {
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name, type, doc
        Its name, its type and what it holds.
    nullable
        Whether it may be null.
    precision
        What is kept of a value that moedb computes of a model that does not run in float32: all of
        it, or as many bits as a norm or a statistic of the router is good for.
    since
        The major version of the format that it came with; null in a store of an older one.
    """

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False
    precision: Precision = "full"
    since: int = 1

    @property
    def sql_type(self) -> str:
        """The column's type in SQL."""
        return SQL_TYPES[self.type]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    name
        The table's name, which is also its folder in a run.
    row
        What one row is.
    columns
        Its columns, ``run_id`` first.
    sort_by
        The order of the rows within a file.
    byte_stream_split
        The float columns that are stored with the BYTE_STREAM_SPLIT encoding.
    delta
        The integer columns that are stored with the DELTA_BINARY_PACKED encoding: those with a
        value of its own in nearly every row. The others have dictionaries.
    added_by
        The commands that add rows of it to a complete run; none where a capture's are all there
        are.
    is_captured
        Whether captures and interventions write it; where not, what is added is all there is.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    sort_by: tuple[str, ...]
    byte_stream_split: tuple[str, ...] = ()
    delta: tuple[str, ...] = ()
    added_by: tuple[str, ...] = ()
    is_captured: bool = True

    @property
    def holds(self) -> str:
        """What it holds, for a list of tables: its rows, and who fills it later."""
        by = " and ".join(self.added_by)
        also = "added to" if self.is_captured else "filled"
        return f"{self.row} ({also} by {by})" if by else self.row

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


RUN_ID = Column("run_id", "string", "the run: its job and a hash of its configuration")
TOKEN_IDX = Column("token_idx", "int64", "the token's number within the run, from 0")
EXAMPLE_ID = Column("example_id", "int32", "the example's number within the run, from 0")
LAYER = Column("layer", "int32", "index of the decoder block (or conv stage) that holds the block")
EXPERT = Column("expert", "int32", "index of the routed expert in its layer")
CONDITION_ID = Column("condition_id", "int32", "the condition; 0 is the untouched model")
KEY = Column("key", "string", "the label's key, such as template or role")
VALUE = Column("value", "string", "the label's value")
