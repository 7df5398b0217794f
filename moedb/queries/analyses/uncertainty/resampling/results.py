"""The result of a named query with intervals, and with what chance gives, beside its estimates."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.bootstrap import FEW
from moedb.queries.analyses.uncertainty.over_trials import (
    OVER_TRIALS,
    ends_over_trials,
    how_over_trials,
)
from moedb.queries.analyses.uncertainty.resampling.asked_again import (
    AskedAgain,
    can_be_asked_again,
)
from moedb.queries.analyses.uncertainty.resampling.null.asked_of_chance import AskedOfChance
from moedb.queries.analyses.uncertainty.resampling.null.chances import false_discovery_rates
from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling
from moedb.queries.analyses.uncertainty.without import no_chance, no_intervals
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.questions.question import Question
from moedb.queries.results.result import Provenance, Resampled, Result
from moedb.queries.results.rows.given import relation_of_table
from moedb.queries.results.values.intervals import HIGH, LOW
from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

logger = logging.getLogger(__name__)

NULL, P_VALUE, Q_VALUE = "_null", "_p", "_q"
"""What those have of what chance gives: its mean, a p-value, a rate of false discoveries."""


def check_doubt(question: Question, resampling: Resampling | None, null: Null | None) -> None:
    """Refuse what cannot be said of a question, before it is asked.

    Raises
    ------
    UsageError
        If intervals cannot be asked for, or chance is not known of any of its columns.
    """
    has_chance = has_intervals = False
    if isinstance(question, NamedQuery):
        has_chance = bool(question.shuffled or question.even)
        has_intervals = can_be_asked_again(question)
    if null is not None and not has_chance:
        raise no_chance(question)
    if resampling is not None and not has_intervals and question.name not in OVER_TRIALS:
        raise no_intervals(question)


def with_doubt(
    reader: "SnapshotReader",
    question: Question,
    values: "Mapping[str, Value]",
    result: Result,
    resampling: Resampling | None,
    null: Null | None,
) -> Result:
    """Return a result with intervals, with what chance gives, or with both beside its estimates.

    Raises
    ------
    UsageError
        If what is asked for does not fit: see :func:`check_doubt`, and the settings.
    """
    found = result
    if resampling is not None and question.name in OVER_TRIALS:
        return _over_trials(question, found, resampling)
    if isinstance(question, NamedQuery):
        if null is not None:
            found = with_chance(reader, question, values, found, null)
        if resampling is not None:
            found = with_intervals(reader, question, values, found, resampling)
    return found


def with_intervals(
    reader: "SnapshotReader",
    question: NamedQuery,
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
    """
    asked = AskedAgain(reader, question, values, result.arrow(), resampling)
    found = asked.intervals()
    warn_of_few(question, asked)
    ends = {name: {LOW: found.low[name], HIGH: found.high[name]} for name in found.low}
    intervals = Resampled(found.title, asdict(resampling))
    return _beside(result, ends, replace(result.provenance, intervals=intervals))


def _over_trials(question: Question, result: Result, resampling: Resampling) -> Result:
    """Return a result about trials with intervals, which its own columns tell.

    Raises
    ------
    UsageError
        If draws, or other clusters, are asked for.
    """
    if resampling.method == "percentile" or resampling.cluster is not None:
        raise UsageError(
            f"{question.name}: what is sure of trials is told over them, and nothing is drawn",
            f"moedb query {question.name} --ci",
        )
    found = ends_over_trials(question.name, result.arrow())
    ends = {name: {LOW: low, HIGH: high} for name, (low, high) in found.items()}
    title = f"95 % intervals: {how_over_trials(question.name)}"
    intervals = Resampled(title, asdict(resampling))
    return _beside(result, ends, replace(result.provenance, intervals=intervals))


def with_chance(
    reader: "SnapshotReader",
    question: NamedQuery,
    values: "Mapping[str, Value]",
    result: Result,
    null: Null,
) -> Result:
    """Return a result with columns behind those that chance is known of.

    They are the mean of what chance gives, the ends of the middle 95 % of it, the p-value, and the
    rate of false discoveries at which a row is one, over all rows of the result.

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
    null
        How what chance gives is asked for.

    Raises
    ------
    UsageError
        If there is no label to shuffle, or the query compares two runs.
    """
    asked = AskedOfChance(reader, question, values, result.arrow(), null)
    columns = {
        name: {
            NULL: found.mean,
            f"{NULL}{LOW}": found.low,
            f"{NULL}{HIGH}": found.high,
            P_VALUE: found.p_value,
            Q_VALUE: false_discovery_rates(found.p_value),
        }
        for name, found in asked.chances().items()
    }
    chance = Resampled(asked.title, asdict(null))
    return _beside(result, columns, replace(result.provenance, chance=chance))


def _beside(
    result: Result,
    columns: "Mapping[str, Mapping[str, NDArray[np.float64]]]",
    provenance: Provenance,
) -> Result:
    """Return a result with more columns behind some of its own."""
    import pyarrow as pa

    table = result.arrow()
    cells = []
    for name, sql_type in zip(result.columns, result.types, strict=True):
        cells.append(f"cast({quoted(name)} as {sql_type}) as {quoted(name)}")
        for ending, values in columns.get(name, {}).items():
            table = table.append_column(f"{name}{ending}", pa.array(values, from_pandas=True))
            cells.append(quoted(f"{name}{ending}"))
    connection, relation = relation_of_table(table, ", ".join(cells))
    return replace(
        result,
        relation=relation,
        connection=connection,
        find_provenance=lambda: provenance,
    )


def warn_of_few(question: Question, asked: AskedAgain) -> None:
    """Say where intervals are of few clusters, or of a single one, which has none."""
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
