"""The result of a named query with the ends of intervals beside its estimates."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.bootstrap import FEW
from moedb.queries.analyses.uncertainty.resampling.asked_again import (
    AskedAgain,
    can_be_asked_again,
)
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.questions.question import Question
from moedb.queries.results.result import Intervals, Result
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

logger = logging.getLogger(__name__)

LOW, HIGH = "_low", "_high"
"""What the names of the columns of ends have behind that of their estimate."""

_OWN = ("samples", "permutations")
"""Parameters of a question that tells by itself how sure it is."""


def with_intervals(
    reader: "SnapshotReader",
    question: Question,
    values: "Mapping[str, Value]",
    result: Result,
    resampling: Resampling,
) -> Result:
    """Return a result with two columns behind each estimate: the ends of its 95 % interval.

    Parameters
    ----------
    reader
        Reads the runs that the question was asked of.
    question
        The question.
    values
        The values of its parameters, runs by their whole names.
    result
        What it gave.
    resampling
        How intervals are asked for.

    Raises
    ------
    UsageError
        If the question is none of those that intervals can be asked for.
    """
    if not isinstance(question, NamedQuery) or not can_be_asked_again(question):
        raise _no_intervals(question)
    given = result.arrow()
    asked = AskedAgain(reader, question, values, given, resampling)
    found = asked.intervals()
    _warn_of_few(question, asked)
    connection = connect_to_nothing()
    connection.register("incoming", _beside(given, found.low, found.high))
    types = dict(zip(result.columns, result.types, strict=True))
    cells = ", ".join(
        part
        for name, sql_type in types.items()
        for part in (
            f"cast({quoted(name)} as {sql_type}) as {quoted(name)}",
            *(quoted(f"{name}{end}") for end in (LOW, HIGH) if name in found.low),
        )
    )
    connection.execute(f"create table given as select {cells} from incoming")  # noqa: S608
    connection.unregister("incoming")
    intervals = Intervals(found.title, asdict(resampling))
    provenance = replace(result.provenance, intervals=intervals)
    return replace(
        result,
        relation=connection.table("given"),
        connection=connection,
        find_provenance=lambda: provenance,
    )


def _warn_of_few(question: Question, asked: AskedAgain) -> None:
    if asked.n_clusters < 2:
        logger.warning(
            "%s: no intervals, as all examples are of one cluster%s; --cluster KEY names another "
            "label that tells them apart",
            *(question.name, "" if asked.key is None else f" by {asked.key}"),
        )
    elif asked.n_clusters < FEW:
        logger.warning(
            "%s: intervals from fewer than %s clusters, and there are %s, hold the true value less "
            "often than 95 %% of the time",
            *(question.name, FEW, asked.n_clusters),
        )


def _beside(
    given: "pa.Table",
    low: "Mapping[str, NDArray[np.float64]]",
    high: "Mapping[str, NDArray[np.float64]]",
) -> "pa.Table":
    import pyarrow as pa

    table = given
    for name in low:
        for end, values in ((LOW, low[name]), (HIGH, high[name])):
            table = table.append_column(f"{name}{end}", pa.array(values, from_pandas=True))
    return table


def _no_intervals(question: Question) -> UsageError:
    own = [parameter.name for parameter in question.parameters if parameter.name in _OWN]
    if own:
        return UsageError(
            f"{question.name} says by itself how sure it is, without --ci",
            f"moedb query {question.name} -p {own[0]} N",
        )
    return UsageError(
        f"{question.name} has no estimates that examples could be drawn again for",
        "moedb query NAME --help says which columns --ci gives intervals of",
    )
