"""What can be asked by a name, whether SQL or Python answers it."""

from __future__ import annotations

from dataclasses import dataclass

from moedb.queries.questions.parameters import Parameter


@dataclass(frozen=True)
class OutputColumn:
    """One column of a question's result."""

    name: str
    doc: str


@dataclass(frozen=True)
class Question:
    """What a named query and an analysis in Python have in common.

    Attributes
    ----------
    name
        Its name, words joined by hyphens.
    title
        Its title, fit for the caption of a table.
    answers
        The question that it answers.
    parameters
        Its parameters; a macro has them in this order.
    columns
        The columns of its result, in order.
    source
        Where its definitions come from.
    """

    name: str
    title: str
    answers: str
    parameters: tuple[Parameter, ...]
    columns: tuple[OutputColumn, ...]
    source: str

    @property
    def reads(self) -> tuple[str, ...]:
        """What a run must hold for it: tables, and columns that are null in some runs."""
        return ()

    @property
    def reads_arrays(self) -> tuple[str, ...]:
        """Arrays of which a run must keep one for it, at one layer at least."""
        return ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns of its result, in order."""
        return tuple(column.name for column in self.columns)
