"""The rows of one question over several runs, one run after the other, as one result."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from moedb.queries.results.result import Resampled, Result
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import quoted

RUN = "run"
"""The column that tells runs apart."""


class OfRun(NamedTuple):
    """What a question found in a run.

    Attributes
    ----------
    title
        What the run is called.
    label
        Its value of the label that runs are told apart by; None without such a label.
    result
        The rows.
    """

    title: str
    label: str | None
    result: Result


def side_by_side(
    found: Sequence[OfRun], key: str | None, parameters: Mapping[str, object]
) -> Result:
    """Put the rows of several runs one after the other, with the run in the first column.

    Parameters
    ----------
    found
        For each run its rows, of the same columns.
    key
        The label that is the second column, by which runs are put in order: as numbers where all
        are. None for the order in which they are given.
    parameters
        What the question was asked with.

    Returns
    -------
    Result
        Its provenance names all runs.
    """
    first = found[0].result
    columns = [RUN, *([key] if key is not None else []), *first.columns]
    names = [name if name not in columns[:at] else f"{name}_" for at, name in enumerate(columns)]
    numbers = None if key is None else _numbers([each.label for each in found])
    if numbers is not None:
        types = ["VARCHAR", "BIGINT" if isinstance(numbers[0], int) else "DOUBLE"]
        order = sorted(range(len(found)), key=numbers.__getitem__)
        labels: Sequence[object] = numbers
    else:
        types = ["VARCHAR", *(["VARCHAR"] if key is not None else [])]
        order = list(range(len(found)))
        labels = [each.label for each in found]
        if key is not None:
            order.sort(key=lambda at: (found[at].label is None, found[at].label or ""))
    connection = connect_to_nothing()
    declared = ", ".join(
        f"{quoted(name)} {sql_type}"
        for name, sql_type in zip(names, [*types, *first.types], strict=True)
    )
    connection.execute(f"create table given ({declared})")
    for at in order:
        before = [found[at].title, *([labels[at]] if key is not None else [])]
        connection.register("incoming", found[at].result.arrow())
        marks = ", ".join("?" for _ in before)
        connection.execute(
            f"insert into given select {marks}, * from incoming",  # noqa: S608
            before,
        )
        connection.unregister("incoming")
    runs = {run.run_id: run for at in order for run in found[at].result.provenance.runs}
    provenance = replace(
        first.provenance,
        parameters=dict(parameters),
        runs=tuple(runs.values()),
        intervals=_of_all([(of.title, of.result.provenance.intervals) for of in found]),
        chance=_of_all([(of.title, of.result.provenance.chance) for of in found]),
    )
    caution = next((each.result.caution for each in found if each.result.caution), None)

    def why_empty() -> str:
        reasons = {
            each.title: each.result.explain() for each in found if each.result.explain is not None
        }
        return "; ".join(f"{title}: {reason}" for title, reason in reasons.items())

    return Result(
        connection.table("given"),
        lambda: provenance,
        connection,
        why_empty,
        lambda _: caution,
    )


def _of_all(told: Sequence[tuple[str, Resampled | None]]) -> Resampled | None:
    """How something was found in all runs: told of each where that differs."""
    known = [(title, how) for title, how in told if how is not None]
    if not known:
        return None
    titles = dict.fromkeys(how.title for _, how in known)
    if len(titles) == 1:
        return known[0][1]
    each = "; ".join(f"{how.title} ({title})" for title, how in known)
    return Resampled(each, known[0][1].settings)


def _numbers(labels: Sequence[str | None]) -> list[int] | list[float] | None:
    """The labels as numbers, if all of them are: whole ones where all are."""
    try:
        values = [float(label) for label in labels if label is not None]
    except ValueError:
        return None
    if len(values) < len(labels) or not all(map(math.isfinite, values)):
        return None
    is_whole = all(value.is_integer() and abs(value) < 2**53 for value in values)
    return [int(value) for value in values] if is_whole else values
