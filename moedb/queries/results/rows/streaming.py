"""The rows of a result one after the other, so that they need not all be in memory."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moedb.queries.results.conversions import NOT_IN_PYTHON
from moedb.queries.results.result import Result
from moedb.queries.results.sheets import MOST_ROWS, SheetColumn, columns_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class RowStream:
    """The rows of a result, read once.

    Attributes
    ----------
    source
        The result.
    limit
        Rows at most; None for all.
    n_rows
        How many have been read.
    truncated
        Whether ``limit`` left rows out, known once they are read.
    """

    source: Result
    limit: int | None = None
    n_rows: int = field(default=0, init=False)
    truncated: bool = field(default=False, init=False)

    @cached_property
    def columns(self) -> tuple[SheetColumn, ...]:
        """The columns, in order."""
        return columns_of(self.source)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Read the rows."""
        with closing(self._cut.as_text(NOT_IN_PYTHON).batches()) as batches:
            for batch in batches:
                for row in batch:
                    if self.n_rows == self.limit:
                        self.truncated = True
                        return
                    self.n_rows += 1
                    yield row

    def arrow(self) -> "Iterator[pa.RecordBatch]":
        """Read the rows as Arrow, some at a time."""
        with closing(self._cut.arrow_batches()) as batches:
            for batch in batches:
                left = batch.num_rows if self.limit is None else self.limit - self.n_rows
                self.truncated = self.truncated or left < batch.num_rows
                taken = batch.slice(0, left)
                self.n_rows += taken.num_rows
                yield taken

    @property
    def _cut(self) -> Result:
        """The result with one row more than the limit, to know whether there are more."""
        if self.limit is None:
            return self.source
        return self.source.limit(min(self.limit + 1, MOST_ROWS))
