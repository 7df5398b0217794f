"""Expert outputs of the tokens that a SQL condition picks: rows of Zarr arrays, chosen in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.schemas.tables import TABLE_NAMES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.reading.reader import SnapshotReader

# The names of tables and views stand for one run's own rows, in subqueries too.
_OWN_ROWS = ", ".join(
    f"{name} as (select * from main.{name} where run_id = $run)"  # noqa: S608
    for name in (*TABLE_NAMES, "experts", "labels", "token_context")
)


@dataclass(frozen=True)
class ExpertOutputs:
    """The expert outputs of some tokens at one layer.

    Attributes
    ----------
    values
        (token, rank, d_model): E_i(x) of the expert of each rank, before its weight.
    experts
        (token, rank): which expert it is.
    weights
        (token, rank): its weight.
    tokens
        One row for each token, in the same order: token_idx, example_id, position, token,
        array_row.
    """

    values: NDArray[np.floating[Any]]
    experts: NDArray[np.integer[Any]]
    weights: NDArray[np.floating[Any]]
    tokens: pd.DataFrame

    def of_expert(self, expert: int) -> NDArray[np.floating[Any]]:
        """(token, d_model): the outputs of one expert, for the tokens that it was chosen for."""
        chosen: NDArray[np.floating[Any]] = self.values[self.experts == expert]
        return chosen


def read_expert_outputs(
    reader: SnapshotReader, run_id: str, layer: int, where: str
) -> ExpertOutputs:
    """Read what :meth:`Database.expert_outputs` returns.

    Parameters
    ----------
    reader
        Reads the store.
    run_id
        The whole name of the run.
    layer
        The layer.
    where
        A condition over the columns of ``tokens`` and ``examples``.

    Raises
    ------
    ArrayNotFoundError, SqlError
        If the run does not keep the layer's outputs, or the condition is not valid SQL.
    """
    import numpy as np

    array = reader.array(run_id, "expert_outputs", layer)
    tokens = reader.sql(
        f"with {_OWN_ROWS} select token_idx, example_id, position, token, array_row "  # noqa: S608
        "from tokens join examples using (run_id, example_id) "
        f"where array_row is not null and (\n{where}\n) order by token_idx",
        {"run": run_id},
    ).df()
    chosen = reader.sql(
        "select token_idx, expert, weight from routing where run_id = $run and layer = $layer "
        "order by token_idx, rank",
        {"run": run_id, "layer": layer},
    ).df()
    chosen = chosen[chosen["token_idx"].isin(tokens["token_idx"])]
    shape = (len(tokens), array.shape[1])
    rows = np.asarray(tokens["array_row"], dtype=np.int64)
    values = np.asarray(array.oindex[rows]) if len(rows) else np.empty((0, *array.shape[1:]))
    return ExpertOutputs(
        values=values.astype(array.dtype, copy=False),
        experts=chosen["expert"].to_numpy().reshape(shape),
        weights=chosen["weight"].to_numpy().reshape(shape),
        tokens=tokens,
    )
