"""Asking a named query for a page: its rows as columns, and how it is typed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moedb.errors import MoedbError, UsageError
from moedb.queries.analyses.analysis import Analysis
from moedb.queries.analyses.registry import find_question, sql_of
from moedb.queries.questions.question import Question
from moedb.queries.report.pages.columns import table
from moedb.queries.results.rows.refinement import Refinement, picked, refined
from moedb.queries.results.values.intervals import HIGH, LOW
from moedb.store.engine.execution import stop_if_asked

if TYPE_CHECKING:
    import pyarrow as pa

    from moedb.queries.report.pages.subject import Subject
    from moedb.queries.results.result import Result

Json = dict[str, Any]
"""What JSON can hold."""

_ENDS = {
    LOW: "lower end of its 95 % interval",
    HIGH: "upper end",
}


@dataclass(frozen=True)
class Part:
    """A named query of a page, with the figures over its rows.

    Attributes
    ----------
    id
        What links and other views call it.
    query, parameters
        What is asked; the run is added.
    caption
        What it shows.
    figures
        The figures, in the client's words (see ``client/figures``).
    sure
        Whether its intervals are asked for, where those of a page are.
    where
        Which rows are kept, in SQL over its columns; all when None.
    columns, ends
        The columns that are kept, and of which of them the ends of intervals too; all when None.
    """

    id: str
    query: str
    caption: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    figures: tuple[Mapping[str, Any], ...] = ()
    sure: bool = False
    where: str | None = None
    columns: tuple[str, ...] | None = None
    ends: tuple[str, ...] = ()

    def shown(self, there: Sequence[str]) -> list[str] | None:
        """The columns that are shown, of those that there are; None for all of them."""
        if self.columns is None:
            return None
        ends = {f"{name}{end}" for name in self.ends for end in (LOW, HIGH)}
        return [name for name in there if name in self.columns or name in ends]


def answered(subject: "Subject", part: Part) -> Json:
    """Ask, and return the rows with what a page says of them.

    What the run cannot answer has ``missing``, the sentence that says why, in the place of rows.
    """
    told: Json = {"id": part.id, "query": part.query, "caption": part.caption}
    stop_if_asked()
    question = find_question(part.query)
    told["asks"] = question.answers
    try:
        result = rows_of(subject, part)
        rows = result.arrow()
        if not rows.num_rows:
            raise UsageError(result.why_empty())
    except MoedbError as error:
        return {**told, "missing": f"{error.message}" + (f" ({error.hint})" if error.hint else "")}
    return {**told, **_with_rows(subject, part, question, result, rows)}


def rows_of(subject: "Subject", part: Part) -> "Result":
    """The rows of a part, with intervals where they are wanted."""
    database = subject.resampled if part.sure else subject.database
    result = database.query(part.query, **_given(subject, part), run=subject.run.run_id)
    return picked(refined(result, Refinement(part.where, None)), part.shown(result.columns))


def _with_rows(
    subject: "Subject", part: Part, question: Question, result: "Result", found: "pa.Table"
) -> Json:
    """What a page says of rows that there are."""
    rows = table(found)
    said = {column.name: column.doc for column in question.columns}
    for column in rows["columns"]:
        column["is"] = _description(column["name"], said)
    return {
        "table": rows,
        "figures": [dict(each) for each in part.figures],
        "command": command_of(subject, part, result.columns),
        "sql": _sql(subject, part, question, result),
        "footer": result.footer,
    }


def command_of(subject: "Subject", part: Part, columns: Sequence[str]) -> str:
    """The command that gives the same rows, with these columns."""
    words = ["moedb", "query", part.query, "--run", subject.run.run_id]
    for key, value in _given(subject, part).items():
        words += ["-p", key, str(value)]
    if part.where is not None:
        words += ["--where", part.where]
    if part.columns is not None:
        words += ["--columns", ",".join(columns)]
    if part.sure and subject.resampling is not None:
        how = subject.resampling
        words += ["--ci", how.method, "--samples", str(how.samples), "--seed", str(how.seed)]
        words += [] if how.cluster is None else ["--cluster", how.cluster]
    return shlex.join(words)


def _sql(subject: "Subject", part: Part, question: Question, result: "Result") -> str:
    if isinstance(question, Analysis):
        return result.provenance.sql
    return sql_of(part.query, {**part.parameters, "run": subject.run.run_id})


def _given(subject: "Subject", part: Part) -> dict[str, object]:
    """The parameters of a part; analyses that draw for intervals of their own draw as the page."""
    known = {parameter.name for parameter in find_question(part.query).parameters}
    if "samples" not in known:
        return dict(part.parameters)
    how = subject.resampling
    drawn: dict[str, object] = {"samples": 0}
    if how is not None:
        drawn = {"samples": how.samples, "seed": how.seed}
        drawn |= {"cluster": how.cluster} if how.cluster is not None and "cluster" in known else {}
    return {**part.parameters, **drawn}


def _description(name: str, said: Mapping[str, str]) -> str:
    for ending, text in _ENDS.items():
        if name not in said and name.endswith(ending):
            return f"of {name.removesuffix(ending)}: {text}"
    return said.get(name, "")
