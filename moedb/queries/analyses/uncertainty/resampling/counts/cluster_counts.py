"""What each cluster of examples adds to the rows of the counted views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.uncertainty.resampling.draws import Drawn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from moedb.queries.counting.decisions.rows import Rows

_LAYER = "layer"

_MOST_CODES = 1 << 20
"""Of so many numbers a table is held, which is faster than to sort them."""

_FULL = 0.05
"""Of a matrix that holds more numbers than this share of its places all places are multiplied."""


@dataclass(frozen=True)
class ClusterCounts:
    """What clusters add to the rows of a view, at one layer where the view has layers.

    Attributes
    ----------
    cells
        The columns that tell rows apart, each (cell,).
    added
        By the names of columns of counts and sums, (cell, cluster). The first of them counts: a row
        where it is 0 is not there.
    """

    cells: "Rows"
    added: "Mapping[str, csr_array]"

    @property
    def n_cells(self) -> int:
        """How many rows there may be."""
        return int(next(iter(self.added.values())).shape[0])

    def drawn(self, weights: "NDArray[np.float64]") -> Drawn:
        """Add up the clusters, each as often as it counts.

        Parameters
        ----------
        weights
            (draw, cluster).
        """
        import numpy as np

        totals = {name: multiplied(of, weights.T) for name, of in self.added.items()}
        counted = next(iter(totals.values()))
        return Drawn(self.cells, totals, np.asarray(counted > 0))


def multiplied(added: "csr_array", weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(cell, draw): as a matrix that is mostly full where it is, which is faster."""
    import numpy as np

    n_cells, n_clusters = added.shape
    is_full = added.nnz > _FULL * n_cells * n_clusters
    found: NDArray[np.float64] = np.asarray((added.toarray() if is_full else added) @ weights)
    return found


def by_layer(
    rows: "Rows",
    keys: Sequence[str],
    sums: Sequence[str],
    clusters: "NDArray[np.int64]",
    n_clusters: int,
) -> "dict[int | None, ClusterCounts]":
    """Add up rows of examples by cluster.

    Parameters
    ----------
    rows
        A row for each example, or cluster, and cell of the view.
    keys
        The columns that tell cells apart.
    sums
        The columns to be added up, the one that counts first.
    clusters
        (row,): the cluster of each.
    n_clusters
        How many clusters there are.

    Returns
    -------
    dict
        By the layer; all under None where ``keys`` holds none.
    """
    import numpy as np

    if _LAYER not in keys or not len(clusters):
        return {None: _counts(rows, keys, sums, clusters, n_clusters)}
    found: dict[int | None, ClusterCounts] = {}
    layers = np.asarray(rows[_LAYER], np.int16)  # sorted by their digits
    order = np.argsort(layers, kind="stable")
    numbers, starts = np.unique(layers[order], return_index=True)
    for layer, of_layer in zip(numbers, np.split(order, starts[1:]), strict=True):
        part = {name: np.asarray(values)[of_layer] for name, values in rows.items()}
        found[int(layer)] = _counts(part, keys, sums, clusters[of_layer], n_clusters)
    return found


def _counts(
    rows: "Rows",
    keys: Sequence[str],
    sums: Sequence[str],
    clusters: "NDArray[np.int64]",
    n_clusters: int,
) -> ClusterCounts:
    import numpy as np
    from scipy.sparse import coo_array

    cell, first = _numbered([np.asarray(rows[key]) for key in keys], len(clusters))
    shape = len(first), n_clusters
    added = {
        name: coo_array((np.asarray(rows[name], np.float64), (cell, clusters)), shape).tocsr()
        for name in sums
    }
    return ClusterCounts({key: np.asarray(rows[key])[first] for key in keys}, added)


def _numbered(
    columns: "Sequence[NDArray[Any]]", n_rows: int
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """(row,) the number of each row's values, and (number,) the first row that has them."""
    import numpy as np

    if not columns or not n_rows:
        return np.zeros(n_rows, np.int64), np.zeros(min(n_rows, 1), np.int64)
    number, n_numbers = np.zeros(n_rows, np.int64), 1
    for values in columns:
        coded, n_codes = _coded(values)
        number, n_numbers = number * n_codes + coded, n_numbers * n_codes
    if n_numbers > _MOST_CODES:
        _, first, cell = np.unique(number, return_index=True, return_inverse=True)
        return cell, first
    is_there = np.zeros(n_numbers, np.bool_)
    is_there[number] = True
    cell = (np.cumsum(is_there) - 1)[number]
    first = np.empty(int(is_there.sum()), np.int64)
    first[cell[::-1]] = np.arange(n_rows - 1, -1, -1)
    return cell, first


def _coded(values: "NDArray[Any]") -> "tuple[NDArray[np.int64], int]":
    """(row,) numbers from 0 on in the order of the values, and how many there may be."""
    import numpy as np

    if values.dtype.kind in "iu":
        least, most = int(values.min()), int(values.max())
        if most - least < _MOST_CODES:
            return values.astype(np.int64) - least, most - least + 1
    different, coded = np.unique(values, return_inverse=True)
    return coded, len(different)
