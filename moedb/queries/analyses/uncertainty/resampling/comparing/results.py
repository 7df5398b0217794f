"""The result of a comparison: a named query for one side less the same for another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from moedb.errors import UsageError, did_you_mean
from moedb.queries.analyses.uncertainty.resampling.asked_again import (
    AskedAgain,
    can_be_asked_again,
)
from moedb.queries.analyses.uncertainty.resampling.comparing.differences import (
    differences,
    share_draws,
)
from moedb.queries.analyses.uncertainty.resampling.comparing.power import power_note
from moedb.queries.analyses.uncertainty.resampling.comparing.sides import Sides
from moedb.queries.analyses.uncertainty.resampling.results import warn_of_few
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.analyses.uncertainty.without import no_intervals
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.results.result import Resampled, Result
from moedb.queries.results.rows.given import relation_of_table
from moedb.queries.results.values.intervals import HIGH, LOW

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader


def compared(
    query: NamedQuery,
    sides: Sides,
    asked: "Sequence[tuple[SnapshotReader, Mapping[str, Value], Result]]",
    resampling: Resampling,
) -> Result:
    """Return the differences of a query between two sides, with their intervals.

    Parameters
    ----------
    query
        The query.
    sides
        What is compared.
    asked
        For either side what reads it, the values of the parameters, and what the query gave; once
        where both are rows of one answer.
    resampling
        How intervals are asked for.

    Raises
    ------
    UsageError
        If intervals cannot be asked for, or no row is of both sides.
    """
    import pyarrow as pa

    if not can_be_asked_again(query):
        raise no_intervals(query)
    (reader, values, result), (_, other_values, other_result) = asked[0], asked[-1]
    rest = [name for name in query.row_columns if name != sides.key]
    is_column = sides.key in query.row_columns and len(asked) == 1
    tables = [result.arrow(), other_result.arrow()]
    if is_column:
        tables = [
            _of_side(query, tables[0], sides.key, value) for value in (sides.one, sides.other)
        ]
    rows = [_keyed(table, rest) for table in tables]
    both = [key for key in rows[0] if key in rows[1]]
    if not both:
        raise UsageError(
            f"{query.name}: there is no row of both {sides.key} {sides.one} and {sides.other}",
            f"moedb query {query.name} --help",
        )
    given = [table.take([of[key] for key in both]) for table, of in zip(tables, rows, strict=True)]
    one = AskedAgain(reader, query, values, given[0], resampling)
    counted = one if is_column else None
    other = AskedAgain(asked[-1][0], query, other_values, given[1], resampling, counted)
    are_paired = share_draws(one, other, resampling)
    found = differences(one, other)
    warn_of_few(query, one)
    columns = {name: given[0][name] for name in rest}
    for at, name in enumerate(query.estimates):
        columns |= {
            f"{name}_a": _as_column(found.one[:, at]),
            f"{name}_b": _as_column(found.other[:, at]),
            f"{name}_difference": _as_column((found.one - found.other)[:, at]),
            f"{name}_difference{LOW}": _as_column(found.low[:, at]),
            f"{name}_difference{HIGH}": _as_column(found.high[:, at]),
        }
    every = (run for each in (result, other_result) for run in each.provenance.runs)
    runs = {(run.run_id, run.splits_read): run for run in every}.values()
    if are_paired:
        title = f"{sides.title}, drawn together; {one.title}"
    else:
        title = f"{sides.title}, drawn apart; {one.title}, and {other.n_clusters} of the other"
    note = power_note(query.estimates, found.error, found.n_clusters)
    provenance = replace(
        result.provenance,
        parameters={
            **dict(result.provenance.parameters),
            "compare": [f"{sides.key}={sides.one}", f"{sides.key}={sides.other}"],
        },
        runs=tuple(runs),
        intervals=Resampled("; ".join(filter(None, (title, note))), asdict(resampling)),
    )
    connection, relation = relation_of_table(pa.table(columns))
    return Result(relation, lambda: provenance, connection)


def _of_side(query: NamedQuery, table: "pa.Table", key: str, value: str) -> "pa.Table":
    """The rows of a side.

    Raises
    ------
    UsageError
        If there are none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = table[key].cast(pa.string())
    rows = table.filter(pc.equal(values, value))
    if not rows.num_rows:
        known = dict.fromkeys(values.to_pylist())
        raise UsageError(
            f"--compare: {query.name} gives no row with {key} {value!r}; "
            f"{did_you_mean(value, known)}",
            f"moedb query {query.name} --compare {key}=A {key}=B",
        )
    return rows


def _keyed(table: "pa.Table", columns: Sequence[str]) -> dict[tuple[object, ...], int]:
    """The place of each row by what tells it apart."""
    values = [table[name].to_pylist() for name in columns]
    return {key: at for at, key in enumerate(zip(*values, strict=True))} if values else {(): 0}


def _as_column(values: "NDArray[np.float64]") -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, from_pandas=True)
