"""What a query gives of clusters that count so often each."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

Ask = Callable[["NDArray[np.float64]"], Mapping[str, "NDArray[np.float64]"]]
"""From how often each cluster counts (draw, cluster) to columns by name, each (draw, row)."""


class Answer(NamedTuple):
    """The answer of a query about some of its rows, all of one layer.

    Attributes
    ----------
    n_cells
        Numbers that are held for each draw.
    ask
        Works out their columns: NaN where a draw has no such row.
    """

    n_cells: int
    ask: Ask


Answers = Callable[["pa.Table", int], Answer]
"""From rows that a query gave, and their layer."""


def cells_by_cluster(
    values: "NDArray[Any]",
    cells: "NDArray[np.integer[Any]]",
    clusters: "NDArray[np.int64]",
    shape: tuple[int, int],
) -> "csr_array":
    """Add up values (entry,) by cell and cluster.

    Returns
    -------
    (cell, cluster).
    """
    import numpy as np
    from scipy.sparse import coo_array

    entries = np.asarray(values, np.float64), (cells, clusters)
    return coo_array(entries, shape).tocsr()


def drawn_cells(added: "csr_array", weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(cell, draw): what clusters add to cells, each as often as it counts."""
    import numpy as np

    return np.asarray(added @ weights.T)


def over(
    above: "NDArray[np.float64]", below: "NDArray[np.float64]", otherwise: float = math.nan
) -> "NDArray[np.float64]":
    """Divide; give another number where nothing is below."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = above / below
    is_nothing = below <= 0
    return np.where(is_nothing, otherwise, found) if is_nothing.any() else found
