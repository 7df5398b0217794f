"""The rows of a counted view that stand beside the rows of an answer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import multiplied

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import ClusterCounts

Drawn = Mapping[str, "NDArray[np.float64]"]
"""By the name of a count, (row, draw)."""


class Beside:
    """What clusters add to rows that are asked about.

    Parameters
    ----------
    counts
        What clusters add to a view.
    wanted
        By the names of the view's columns, (row,): the cell of each row.
    """

    def __init__(self, counts: "ClusterCounts", wanted: "Mapping[str, Sequence[Any]]") -> None:
        cells = zip(*(counts.cells[name] for name in wanted), strict=True)
        place = {cell: at for at, cell in enumerate(cells)}
        places = [place.get(row, -1) for row in zip(*wanted.values(), strict=True)]
        # what no cluster has a cell of takes the last row, which is empty
        self._added = {name: _with_an_empty_row(of)[places] for name, of in counts.added.items()}

    def drawn(self, weights: "NDArray[np.float64]") -> Drawn:
        """Add up clusters that count so often each (draw, cluster): 0 where there is no cell."""
        return {name: multiplied(of, weights.T) for name, of in self._added.items()}


def _with_an_empty_row(added: Any) -> Any:
    from scipy.sparse import csr_array, vstack

    return vstack([added, csr_array((1, added.shape[1]))], format="csr")
