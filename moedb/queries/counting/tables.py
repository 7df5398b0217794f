"""Contingency tables: how often two things come together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def contingency_table(
    rows: NDArray[np.signedinteger[Any]],
    columns: NDArray[np.signedinteger[Any]],
    shape: tuple[int, int],
    weights: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Count the pairs of a row and a column that stand at the same place.

    Several threads can do so at once, which they can't with numpy's ``bincount``.

    Parameters
    ----------
    rows, columns
        The pairs, in arrays of the same size; of int32 they are not copied.
    shape
        The shape of the table.
    weights
        For each pair what it counts for, of the same size; 1 unless given.

    Returns
    -------
    (row, column): in 64 bits, integers without weights and double precision with them.
    """
    import numpy as np
    from scipy.sparse import coo_array

    counted: NDArray[Any]
    if weights is None:
        # the size of int32 as of the indices: no more passes through memory than it needs
        counted = np.ones(rows.size, np.int32)
    else:
        counted = weights.ravel().astype(np.float64)
    table: NDArray[Any] = coo_array((counted, (rows.ravel(), columns.ravel())), shape).toarray()
    return table if weights is not None else table.astype(np.int64)
