"""What describes an analysis in Python: its name, its question, its parameters and columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moedb.queries.questions.parameters import Parameter, Value
from moedb.queries.questions.question import OutputColumn, Question
from moedb.queries.results.result import Computed, View

if TYPE_CHECKING:
    from moedb.queries.reading.reader import SnapshotReader

SqlType = Literal["VARCHAR", "INTEGER", "BIGINT", "DOUBLE"]


@dataclass(frozen=True)
class AnalysisColumn(OutputColumn):
    """One column of an analysis's result, with its SQL type."""

    sql_type: SqlType


@dataclass(frozen=True)
class Analysis(Question):
    """One analysis.

    Attributes
    ----------
    columns
        The columns of its result, in order, with their types.
    function
        Computes it, from a reader and a value for each parameter.
    row
        The named tuple that a row of its result is, with a field for each column.
    needs
        What a run must hold for it: tables, and columns that are null in some runs.
    needs_arrays
        Arrays of which a run must keep one for it; none where it reads no arrays.
    needs_every_array
        Whether it must keep all of them.
    is_long
        Whether it takes so long that its answers are kept on the disk.
    view
        Shows its rows on a terminal; None for a table.
    reads_decisions
        Whether it needs the decisions of single tokens, and no counts of them would do.
    """

    columns: tuple[AnalysisColumn, ...]
    function: "Callable[[SnapshotReader, Mapping[str, Value]], Computed]"
    row: type[tuple[Any, ...]]
    needs: tuple[str, ...] = ("routing",)
    needs_arrays: tuple[str, ...] = ()
    needs_every_array: bool = False
    is_long: bool = False
    view: View | None = None
    reads_decisions: bool = False

    @property
    def needs_one_machine(self) -> bool:
        """Whether what it reads is not there in counts that another engine could make."""
        return self.reads_decisions or bool(self.needs_arrays)

    @property
    def reads(self) -> tuple[str, ...]:
        """What a run must hold for it."""
        return self.needs

    @property
    def reads_arrays(self) -> tuple[str, ...]:
        """Arrays of which a run must keep one for it, at one layer at least."""
        return self.needs_arrays

    @property
    def reads_every_array(self) -> bool:
        """Whether a run must keep all of these arrays."""
        return self.needs_every_array

    @property
    def function_name(self) -> str:
        """The function with its module, to be imported."""
        return f"{self.function.__module__}.{self.function.__qualname__}"


RUN = Parameter("run", "varchar", None, False, "the run; the newest complete one when null")
SPLIT = Parameter(
    "split",
    "varchar",
    None,
    False,
    "the examples' split; null is all but corrupted, all is every one",
)
LOGIT_DIFFERENCES = ("predictions", "predictions.logit_diff")
"""What a run must hold for an analysis of the logit differences of two answers."""
