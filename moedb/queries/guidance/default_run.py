"""Which run a question is about where none is named: the newest that has what it asks for."""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from moedb.errors import (
    ArrayNotFoundError,
    ParameterError,
    RunNotFoundError,
    StoreDamagedError,
    UsageError,
)
from moedb.queries.questions.catalog import catalog

if TYPE_CHECKING:
    from moedb.queries.questions.question import Question
    from moedb.queries.reading.sources.sql_sources import BoundCall
    from moedb.store.reading.snapshot import RunSnapshot, Snapshot

logger = logging.getLogger(__name__)

_TRIED = 16
"""Runs that are looked at, the newest first."""


def of_newest_run(
    snapshot: "Snapshot",
    name: str,
    ask: "Callable[[RunSnapshot], None]",
    compared_with: str | None = None,
) -> "RunSnapshot":
    """Return the newest complete run that has what is asked for.

    Where that is not the newest of all, a line says so.

    Parameters
    ----------
    snapshot
        The runs.
    name
        What is asked for, for that line.
    ask
        Raises :class:`UsageError` where a run has not what is asked for.
    compared_with
        A run that is not taken in the place of the newest, as it would be compared with itself.

    Raises
    ------
    UsageError
        What the newest run lacks, where no other has it.
    RunNotFoundError, StoreDamagedError
        If there is no complete run.
    """
    lacking: list[tuple[RunSnapshot, UsageError]] = []
    for run in islice(_newest_first(snapshot), _TRIED):
        if lacking and run.run_id == compared_with:
            continue
        try:
            ask(run)
        except UsageError as error:
            lacking.append((run, error))
            continue
        if lacking:
            logger.warning(
                "%s is of run %s: the newest, %s, has not what is asked for",
                *(name, run.title, lacking[0][0].title),
            )
        return run
    raise lacking[0][1]


def runs_of_macros(snapshot: "Snapshot", calls: "Iterable[BoundCall]") -> dict[str, str]:
    """Return by a query's name the run that its macro reads in a statement where none is named.

    Parameters
    ----------
    snapshot
        The runs; of a macro whose calls are not known it is the newest complete one.
    calls
        The calls of the statement.

    Raises
    ------
    ParameterError
        If two calls of a macro would read different ones.
    """
    newest = snapshot.newest_complete()
    runs = {} if newest is None else dict.fromkeys(catalog(), newest.run_id)
    found: dict[str, str] = {}
    for call in calls:
        if call.default_run is None:
            continue
        other = found.setdefault(call.query.name, call.default_run)
        if other != call.default_run:
            raise ParameterError(
                f"{call.query.macro_name} is called twice without a run, and what is asked for "
                f"is in different ones: {other} and {call.default_run}",
                "name the run in each call: run := '...'",
            )
    return runs | found


def check_arrays(question: "Question", run: "RunSnapshot") -> None:
    """Check that a run keeps, at some layer, one of the arrays that a question reads, or each.

    Raises
    ------
    ArrayNotFoundError
        If it doesn't.
    """
    wanted = question.reads_arrays
    lacking = [name for name in wanted if not run.manifest.arrays.get(name)]
    if lacking and question.reads_every_array:
        raise ArrayNotFoundError(
            f"{question.name}: run {run.title} keeps no {' and no '.join(lacking)}",
            f"capture again with --arrays {','.join(wanted)}",
        )
    if wanted and not any(run.manifest.arrays.get(name) for name in wanted):
        raise ArrayNotFoundError(
            f"{question.name}: run {run.title} keeps no {' or '.join(wanted)}",
            f"capture again with --arrays {wanted[0]}",
        )


def newest_with_array(snapshot: "Snapshot", name: str, layer: int) -> "RunSnapshot":
    """Return the newest complete run that keeps an array of a layer, else the newest of all.

    Raises
    ------
    RunNotFoundError, StoreDamagedError
        If there is no complete run.
    """

    def ask(run: "RunSnapshot") -> None:
        if layer not in run.manifest.arrays.get(name, ()):
            raise ArrayNotFoundError(name)

    try:
        return of_newest_run(snapshot, f"{name} of layer {layer}", ask)
    except ArrayNotFoundError:
        return next(_newest_first(snapshot))


def _newest_first(snapshot: "Snapshot") -> "Iterator[RunSnapshot]":
    """The complete runs that hold routing of their own, the newest first, of which there is one."""
    if snapshot.chosen is not None:
        yield snapshot.runs[snapshot.chosen]
        return
    complete = snapshot.complete_runs()
    if not complete:
        raise _none_is_complete(snapshot)
    yield from complete


def _none_is_complete(snapshot: "Snapshot") -> RunNotFoundError | StoreDamagedError:
    if snapshot.runs:
        return RunNotFoundError(
            f"no run in {snapshot.title} is complete yet: {', '.join(sorted(snapshot.runs))}",
            "resume it by running its capture command again, or name it: --run RUN",
        )
    if snapshot.damaged:
        return StoreDamagedError(
            f"every run in {snapshot.title} is damaged: {', '.join(sorted(snapshot.damaged))}",
            "moedb verify",
        )
    return RunNotFoundError(f"the store {snapshot.title} holds no runs", "moedb capture qwen-ioi")
