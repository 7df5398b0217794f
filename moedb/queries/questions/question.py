"""What can be asked by a name, whether SQL or Python answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from moedb.errors import MoedbError
from moedb.queries.questions.parameters import Parameter

Subject = Literal["experts", "labels", "tokens", "pairs", "concepts", "predictions", "trials"]

SUBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "experts": "how much, and how surely, experts are used",
        "labels": "experts and the classes of a label",
        "tokens": "experts and the tokens of the vocabulary",
        "pairs": "pairs of experts, of one layer or of two",
        "concepts": "what the neurons of experts tell",
        "predictions": "the model's answers, and what interventions change in them",
        "trials": "CIFAR MoEs that were trained several times",
    }
)
"""What questions are about, in the order in which they are listed."""


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
    subject
        What it is about, one of :data:`SUBJECTS`.
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
    subject: Subject
    parameters: tuple[Parameter, ...]
    columns: tuple[OutputColumn, ...]
    source: str

    def __post_init__(self) -> None:
        if self.subject not in get_args(Subject):
            raise MoedbError(
                f"{self.name} has the subject {self.subject!r}, which is none of "
                + ", ".join(get_args(Subject))
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """What a run must hold for it: tables, and columns that are null in some runs."""
        return ()

    @property
    def reads_arrays(self) -> tuple[str, ...]:
        """Arrays of which a run must keep one for it, at one layer at least."""
        return ()

    @property
    def reads_every_array(self) -> bool:
        """Whether a run must keep all of these arrays."""
        return False

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns of its result, in order."""
        return tuple(column.name for column in self.columns)
