"""The array rows of a unit, gathered from its batches when they are written."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moedb.store.arrays import Activations


class GatheredRows:
    """Rows that lie in the arrays of several batches, in an order of their own.

    They are the largest thing that a capture holds, so they are never put together as a whole.

    Parameters
    ----------
    parts
        The batches' rows.
    order
        ``order[i]`` is where row i is when the parts are laid end to end.
    """

    def __init__(self, parts: Sequence[Activations], order: NDArray[np.int64]) -> None:
        self._parts, self._order = parts, order
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: slice) -> Activations:
        wanted = self._order[rows]
        owners = np.searchsorted(self._ends, wanted, side="right")
        block = np.empty((len(wanted), *self._parts[0].shape[1:]), self._parts[0].dtype)
        for owner in np.unique(owners):
            part = self._parts[owner]
            mine = owners == owner
            block[mine] = part[wanted[mine] - (self._ends[owner] - len(part))]
        return block
