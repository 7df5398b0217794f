"""Runs a named query over many draws of the clusters at once.

Each draw is a run of its own to the query: the relations that it reads hold the rows of all draws,
told apart by ``run_id``, and its SQL is run for each of them by a lateral join. So what an interval
is of is what the query's own SQL says.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.questions.parameters import RUN_PARAMETERS
from moedb.queries.questions.query_file import PARAMETER_CAST
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.execution import stop_if_asked
from moedb.store.engine.quoting import literal, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.draws import Drawn
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery

T = TypeVar("T")

_LAYER = "layer"

MOST_AT_ONCE = 1_000_000
"""Rows of a relation for all draws that a query is run over together."""


STATICS: Mapping[str, str] = MappingProxyType(
    {
        "example_labels": """
            select example_id, key, value from example_labels where run_id = cast($run as varchar)
        """,
        "experts": "select layer, expert from experts where run_id = cast($run as varchar)",
        "moe_layers": """
            select layer, n_experts, top_k from moe_layers where run_id = cast($run as varchar)
        """,
        "predictions": """
            select example_id, condition_id, correct, target_logprob, logit_diff
            from predictions
            where run_id = cast($run as varchar)
        """,
    }
)
"""The relations that are the same for every draw, and what is read of a run's."""


class Replicates:
    """A named query over draws.

    Parameters
    ----------
    query
        The query.
    values
        The values of its parameters.
    columns
        The columns that are asked about.
    threads
        How many threads it runs on; None for as many as there are cores.
    """

    def __init__(
        self,
        query: "NamedQuery",
        values: "Mapping[str, Value]",
        columns: Sequence[str],
        threads: int | None = None,
    ) -> None:
        self._query, self._values, self._columns = query, values, columns
        self._sides = [name for name in RUN_PARAMETERS if values.get(name) is not None]
        # in another order two parts may meet on their keys alone, each draw with every other one
        self._connection = connect_to_nothing(threads, joins_as_written=True)
        self._statics: dict[str, Mapping[str, pa.Table]] = {}
        self.n_rows = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask_about(self, given: "pa.Table") -> None:
        """Ask about these rows of the query from now on, and no others."""
        import numpy as np

        keys = given.select(self._query.row_columns)
        rows = np.arange(given.num_rows, dtype=np.int32)
        with self._registered(keys.add_column(0, "moedb_row", [rows])) as name:
            self._connection.execute(f"create or replace table moedb_given as from {name}")
        self.n_rows = given.num_rows

    def let_stand(self, relation: str, of_runs: "Mapping[str, pa.Table]") -> None:
        """Let rows stand for a relation in every draw, by the parameter that names their run."""
        self._statics[relation] = of_runs

    def let_draws_stand(
        self, view: str, of_runs: "Mapping[str, Drawn]", constants: Mapping[str, str]
    ) -> None:
        """Let rows of draws stand for a view.

        Parameters
        ----------
        view
            The view.
        of_runs
            By the parameter that names the run, its rows.
        constants
            Columns that all rows have alike, such as ``selection``.
        """
        alike = [f"{literal(value)} as {quoted(key)}" for key, value in constants.items()]
        for at, (side, drawn) in enumerate(of_runs.items()):
            table = drawn.table()
            columns = [quoted(name) for name in table.column_names if name != "moedb_draw"]
            chosen = ", ".join([f"{self._run_of(side)} as run_id", *alike, *columns])
            with self._registered(table) as name:
                self._put(view, f"select {chosen} from {name}", at)  # noqa: S608

    def run(self, n_draws: int) -> "NDArray[np.float64]":
        """Run the query over draws.

        Returns
        -------
        (draw, row, column): NaN where a draw has null, or no such row; 0 in the place of a row
        that is left out as nothing was counted. The draws of a cell lie side by side in memory,
        the rows of a column beside each other.
        """
        import numpy as np

        for relation, of_runs in self._statics.items():
            for at, (side, rows) in enumerate(of_runs.items()):
                with self._registered(rows) as name:
                    chosen = f"{self._run_of(side)} as run_id, {name}.*"
                    self._put(relation, f"select {chosen} from {name}, {_draws(n_draws)}", at)  # noqa: S608
        without = [0.0 if name in self._query.absent else np.nan for name in self._columns]
        found = np.empty((len(self._columns), self.n_rows, n_draws))
        found[:] = np.array(without)[:, None, None]
        cells = self._connection.sql(self._statement(n_draws)).to_arrow_table()
        draw, row = (cells[name].to_numpy() for name in ("moedb_draw", "moedb_row"))
        for of_column, name in zip(found, self._columns, strict=True):
            of_column[row, draw] = numbers_of(cells, name)
        return found.transpose(2, 1, 0)

    def _put(self, relation: str, rows: str, at: int) -> None:
        """Make a table of rows, or put them below those that are there."""
        into = "insert into" if at else "create or replace table"
        self._connection.execute(f"{into} {quoted(relation)} {'' if at else 'as '}{rows}")

    @contextmanager
    def _registered(self, rows: "pa.Table") -> Iterator[str]:
        name = "moedb_incoming"
        self._connection.register(name, rows)
        try:
            yield name
        finally:
            self._connection.unregister(name)

    def _run_of(self, side: str) -> str:
        """The run that a draw is to the query, in SQL: a number, faster to join by than a name."""
        return f"moedb_draw * {len(self._sides)} + {self._sides.index(side)}"

    def _statement(self, n_draws: int) -> str:
        query = self._query

        def replacement(mark: re.Match[str]) -> str:
            if mark[1] not in RUN_PARAMETERS:
                return f"cast({literal(self._values.get(mark[1]))} as {mark[2]})"
            return f"moedb_runs.{quoted(mark[1])}" if mark[1] in self._sides else _NO_RUN

        runs = [f"{self._run_of(side)} as {quoted(side)}" for side in self._sides]
        same = " and ".join(
            f"answer.{quoted(name)} is not distinct from given.{quoted(name)}"
            for name in query.row_columns
        )
        estimates = ", ".join(
            f"cast(answer.{quoted(name)} as double) as {quoted(name)}" for name in self._columns
        )
        answer = PARAMETER_CAST.sub(replacement, query.unordered)
        return f"""
            with moedb_runs as materialized (
                select moedb_draw, {", ".join(runs)} from {_draws(n_draws)}
            )
            select moedb_runs.moedb_draw, given.moedb_row, {estimates}
            from moedb_runs, lateral ({answer}) as answer
            join moedb_given as given on {same}
        """  # noqa: S608


_NO_RUN = "cast(null as integer)"


def _draws(n_draws: int) -> str:
    number = f"select cast(range as integer) as moedb_draw from range({n_draws})"  # noqa: S608
    return f"({number}) as moedb_draws"


def chunks_of(n_draws: int, rows_of_draw: int) -> Iterator[slice]:
    """Split draws so that the rows of one relation stay within bounds."""
    step = max(1, MOST_AT_ONCE // max(rows_of_draw, 1))
    for start in range(0, n_draws, step):
        stop_if_asked()
        yield slice(start, min(start + step, n_draws))


def rows_by_layer(
    given: "pa.Table", query: "NamedQuery"
) -> "Iterator[tuple[int | None, NDArray[np.int64]]]":
    """Go through the layers of rows, with the places of each; None for rows of no layer."""
    import numpy as np

    if _LAYER not in query.row_columns:
        yield None, np.arange(given.num_rows)
        return
    of_rows = numbers_of(given, _LAYER).astype(np.int64)
    for layer in each_part(np.unique(of_rows).tolist(), "layers"):
        yield layer, np.flatnonzero(of_rows == layer)


def each_layer(
    given: "pa.Table",
    query: "NamedQuery",
    ask: "Callable[[int | None, NDArray[np.int64], int | None], T]",
) -> Iterator[T]:
    """Ask about the rows of one layer after the other, several side by side on threads.

    Parameters
    ----------
    given
        The rows.
    query
        The query that gave them.
    ask
        Is called with a layer, None for rows of no layer; with the places of its rows; and with the
        threads that it may use, None for as many as there are cores.
    """
    are_several = _LAYER in query.row_columns and len(given[_LAYER].unique()) > 1
    threads = 1 if are_several else None
    yield from side_by_side(
        partial(ask, layer, places, threads) for layer, places in rows_by_layer(given, query)
    )


def numbers_of(table: "pa.Table", name: str) -> "NDArray[np.float64]":
    """(row,): the values of a column; NaN for null."""
    import numpy as np

    values = table[name].cast("double").to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)
