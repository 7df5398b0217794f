"""Contingency tables: how often two things come together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moedb.queries.counting.decisions.workspace import constant, scratch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def contingency_table(
    rows: NDArray[np.signedinteger[Any]],
    columns: NDArray[np.signedinteger[Any]],
    shape: tuple[int, int],
    weights: NDArray[Any] | None = None,
    out: NDArray[Any] | None = None,
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
    out
        What to count in: an array of the shape, and of the type that is returned; a new one unless
        given.

    Returns
    -------
    (row, column): int32 without weights, double precision with them.
    """
    import numpy as np
    from scipy.sparse import coo_array

    if weights is None:
        # as wide as the indices: no more goes through memory than needs to
        counted = constant("ones", (rows.size,), np.int32, 1)
    else:
        counted = scratch("weights", (rows.size,), np.float64)
        np.copyto(counted, weights.ravel())
    if out is not None:
        out.fill(0)
    pairs = coo_array((counted, (rows.ravel(), columns.ravel())), shape)
    table: NDArray[Any] = pairs.toarray(out=out)
    return table


def places_by_group(
    group: NDArray[np.signedinteger[Any]], n_groups: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find where the members of each group stand, by counting, in place of sorting them.

    Parameters
    ----------
    group
        (place,): the group of each place, from 0.
    n_groups
        How many groups there are.

    Returns
    -------
    (place,): the places of group 0, ascending, then those of group 1; and (group + 1,) where each
    group begins among them.
    """
    import numpy as np
    from scipy.sparse import coo_array

    places = np.arange(len(group), dtype=np.int32)
    is_member = np.ones(len(group), np.bool_)
    members = coo_array((is_member, (group, places)), (n_groups, len(group))).tocsr()
    return members.indices, members.indptr
