"""What describes an analysis in Python: its name, its question, its parameters and columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from moedb.queries.parameters import Parameter, Value
from moedb.queries.query_file import OutputColumn
from moedb.queries.result import Computed

if TYPE_CHECKING:
    from moedb.queries.database import Database

SqlType = Literal["VARCHAR", "INTEGER", "BIGINT", "DOUBLE"]


@dataclass(frozen=True)
class AnalysisColumn(OutputColumn):
    """One column of an analysis's result, with its SQL type."""

    sql_type: SqlType


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes
    ----------
    name
        Its name, words joined by hyphens.
    title
        Its title, fit for the caption of a table.
    answers
        The question that it answers.
    parameters
        Its parameters.
    columns
        The columns of its result, in order.
    source
        Where its definitions come from.
    function
        Computes it, from a database and a value for each parameter.
    """

    name: str
    title: str
    answers: str
    parameters: tuple[Parameter, ...]
    columns: tuple[AnalysisColumn, ...]
    source: str
    function: "Callable[[Database, Mapping[str, Value]], Computed]"

    @property
    def function_name(self) -> str:
        """The function with its module, to be imported."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns of its result, in order."""
        return tuple(column.name for column in self.columns)


RUN = Parameter("run", "varchar", None, False, "the run; the newest complete one when null")
SPLIT = Parameter(
    "split",
    "varchar",
    None,
    False,
    "the examples' split; null is all but corrupted, all is every one",
)
