"""The rows of a result one after the other, so that they need not all be in memory."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moedb.queries.results.cells import Estimate
from moedb.queries.results.result import Result
from moedb.queries.results.rows.refinement import picked
from moedb.queries.results.sheets import (
    MOST_ROWS,
    SheetColumn,
    TableOptions,
    columns_of,
    fold_of,
)
from moedb.queries.results.values.conversions import NOT_IN_PYTHON
from moedb.queries.results.values.intervals import Fold

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
    fold
        Which estimates have their interval in their cells.
    truncated
        Whether ``limit`` left rows out, known once they are read.
    lacks_an_end
        Whether an estimate that is shown with its interval has none, known then too.
    """

    source: Result
    limit: int | None = None
    fold: Fold = field(default_factory=Fold)
    n_rows: int = field(default=0, init=False)
    truncated: bool = field(default=False, init=False)
    lacks_an_end: bool = field(default=False, init=False)

    @classmethod
    def of(cls, result: Result, options: TableOptions) -> "RowStream":
        """Return the rows of a result with the columns and intervals that a table has.

        Raises
        ------
        UsageError
            If a column is unknown, or no estimate has an interval to put into cells.
        """
        fold = fold_of(result, options)
        return cls(picked(result, fold.with_ends(options.columns)), options.limit, fold)

    @cached_property
    def columns(self) -> tuple[SheetColumn, ...]:
        """The columns, in order."""
        every = columns_of(self.source)
        return tuple(every[place] for place, *_ in self.fold.places(self.source.columns))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Read the rows."""
        places = self.fold.places(self.source.columns)
        with closing(self._cut.as_text(NOT_IN_PYTHON).batches()) as batches:
            for batch in batches:
                for row in batch:
                    if self.n_rows == self.limit:
                        self.truncated = True
                        return
                    self.n_rows += 1
                    shown = self.fold.row(row, places)
                    if self.fold.ends and not self.lacks_an_end:
                        self.lacks_an_end = any(
                            isinstance(cell, Estimate) and cell.lacks_an_end for cell in shown
                        )
                    yield shown

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
