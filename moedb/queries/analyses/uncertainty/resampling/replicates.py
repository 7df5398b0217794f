"""Runs a named query over many draws of the clusters at once.

Each draw is a run of its own to the query: the relations that it reads hold the rows of all draws,
told apart by ``run_id``, and its macro is called for each of them by a lateral join. So what an
interval is of is what the query's own SQL says.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.questions.macros import create_macros
from moedb.queries.questions.parameters import RUN_PARAMETERS
from moedb.store.engine.connection import connect_to_nothing
from moedb.store.engine.quoting import literal, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.rows import Rows
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery

_LAYER = "layer"

MOST_AT_ONCE = 2_000_000
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
    """

    def __init__(
        self, query: "NamedQuery", values: "Mapping[str, Value]", columns: Sequence[str]
    ) -> None:
        self._query, self._values, self._columns = query, values, columns
        self._sides = [name for name in RUN_PARAMETERS if values.get(name) is not None]
        self._connection = connect_to_nothing()
        self._statics: dict[str, Mapping[str, pa.Table]] = {}
        self.n_rows = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask_about(self, given: "pa.Table") -> None:
        """Ask about these rows of the query from now on, and no others."""
        keys = ", ".join(quoted(name) for name in self._query.row_columns)
        with self._registered(given) as name:
            self._connection.execute(
                f"create or replace table moedb_given as "  # noqa: S608
                f"select (row_number() over ()) - 1 as moedb_row, {keys} from {name}"
            )
        self.n_rows = given.num_rows

    def let_stand(self, relation: str, of_runs: "Mapping[str, pa.Table]") -> None:
        """Let rows stand for a relation in every draw, by the parameter that names their run."""
        self._statics[relation] = of_runs

    def let_draws_stand(
        self, view: str, of_runs: "Mapping[str, Rows]", constants: Mapping[str, str]
    ) -> None:
        """Let rows of draws stand for a view.

        Parameters
        ----------
        view
            The view.
        of_runs
            By the parameter that names the run, its rows; ``draw`` is the number of the draw.
        constants
            Columns that all rows have alike, such as ``selection``.
        """
        import pyarrow as pa

        alike = [f"{literal(value)} as {quoted(key)}" for key, value in constants.items()]
        for at, (side, rows) in enumerate(of_runs.items()):
            columns = [quoted(name) for name in rows if name != "draw"]
            chosen = ", ".join([f"{_run_of('draw', side)} as run_id", *alike, *columns])
            table = pa.table({name: _arrow(values) for name, values in rows.items()})
            with self._registered(table) as name:
                self._put(view, f"select {chosen} from {name}", at)  # noqa: S608

    def run(self, n_draws: int) -> "NDArray[np.float64]":
        """Run the query over draws.

        Returns
        -------
        (draw, row, column): NaN where a draw has null, or no such row; 0 in the place of a row
        that is left out as nothing was counted.
        """
        import numpy as np

        draws = f"range({n_draws}) as draws (moedb_draw)"
        for relation, of_runs in self._statics.items():
            for at, (side, rows) in enumerate(of_runs.items()):
                with self._registered(rows) as name:
                    chosen = f"{_run_of('moedb_draw', side)} as run_id, {name}.*"
                    self._put(relation, f"select {chosen} from {name}, {draws}", at)  # noqa: S608
        without = [0.0 if name in self._query.absent else np.nan for name in self._columns]
        found = np.tile(np.array(without), (n_draws, self.n_rows, 1))
        cells = self._connection.execute(self._statement(n_draws)).fetchnumpy()
        draw, row = cells["moedb_draw"], cells["moedb_row"]
        for at, name in enumerate(self._columns):
            values = np.ma.asarray(cells[name]).astype(np.float64)
            found[draw, row, at] = np.ma.filled(values, np.nan)
        return found

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

    def _statement(self, n_draws: int) -> str:
        query = self._query
        create_macros(self._connection, query.macro_name, default_runs={query.name: "none"})
        arguments = [
            f"{quoted(name)} := {literal(value)}"
            for name, value in self._values.items()
            if name not in RUN_PARAMETERS and value is not None
        ]
        arguments += [f"{quoted(side)} := draws.{quoted(side)}" for side in self._sides]
        runs = ", ".join(f"{_run_of('range', side)} as {quoted(side)}" for side in self._sides)
        same = " and ".join(
            f"answer.{quoted(name)} is not distinct from given.{quoted(name)}"
            for name in query.row_columns
        )
        estimates = ", ".join(f"answer.{quoted(name)}" for name in self._columns)
        macro = f"{quoted(query.macro_name)}({', '.join(arguments)})"
        return f"""
            with draws as materialized (
                select range as moedb_draw, {runs} from range({n_draws})
            )
            select draws.moedb_draw, given.moedb_row, {estimates}
            from draws, lateral (select * from {macro}) as answer
            join moedb_given as given on {same}
        """  # noqa: S608


def _run_of(draw: str, side: str) -> str:
    """The name of the run that a draw is to the query, in SQL."""
    return f"{literal(side + '-')} || {draw}"


def _arrow(values: Any) -> Any:
    """Texts are written once for each that differs."""
    import numpy as np
    import pyarrow as pa

    array = np.asarray(values)
    if array.dtype == object or array.dtype.kind == "U":
        return pa.array(array.astype(object)).dictionary_encode()
    return pa.array(array)


def chunks_of(n_draws: int, rows_of_draw: int) -> Iterator[slice]:
    """Split draws so that the rows of one relation stay within bounds."""
    step = max(1, MOST_AT_ONCE // max(rows_of_draw, 1))
    for start in range(0, n_draws, step):
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


def numbers_of(table: "pa.Table", name: str) -> "NDArray[np.float64]":
    """(row,): the values of a column; NaN for null."""
    import numpy as np

    values = table[name].cast("double").to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)
