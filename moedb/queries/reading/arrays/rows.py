"""Reading some rows of an array that may be larger than memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moedb.queries.reading.selection import SELECTED_EXAMPLES
from moedb.schemas.arrays import SHARD_ROWS

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value

KEPT = f"""
with kept as (
    select
        tokens.run_id,
        tokens.token_idx,
        tokens.array_row,
        tokens.example_id,
        tokens.token_id
    from tokens
    where tokens.run_id = cast($run as varchar)
        and tokens.array_row is not null
        and tokens.example_id in {SELECTED_EXAMPLES}
)
""".strip()  # noqa: S608
"""The selected tokens of ``$run`` that its arrays have rows for, of ``$split``."""


def pieces(rows: "NDArray[np.int64]") -> Iterator[slice]:
    """Divide ascending rows into pieces that each lie in one shard.

    Examples
    --------
    >>> import numpy as np
    >>> list(pieces(np.array([3, 900, 1024, 5000])))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    import numpy as np

    done = 0
    while done < len(rows):
        start = int(rows[done]) // SHARD_ROWS * SHARD_ROWS
        end = int(np.searchsorted(rows, start + SHARD_ROWS))
        yield slice(done, end)
        done = end


def read_piece(stored: "zarr.Array[Any]", rows: "NDArray[np.int64]") -> "NDArray[np.floating[Any]]":
    """Read ascending rows of one shard."""
    import numpy as np

    first, last = int(rows[0]), int(rows[-1])
    values: NDArray[np.floating[Any]] = np.asarray(stored[first : last + 1])[rows - first]
    return values


def read_rows(stored: "zarr.Array[Any]", rows: "NDArray[np.int64]") -> "NDArray[np.floating[Any]]":
    """Read ascending rows, a shard at a time."""
    import numpy as np

    values = np.empty((len(rows), *stored.shape[1:]), dtype=stored.dtype)
    for piece in pieces(rows):
        values[piece] = read_piece(stored, rows[piece])
    return values


def spread(n: int, most: "Value") -> "NDArray[np.int64]":
    """Return the positions of at most ``most`` of ``n`` rows, evenly spread.

    Examples
    --------
    >>> spread(7, 3).tolist(), spread(2, None).tolist()
    ([0, 2, 4], [0, 1])
    """
    import numpy as np

    count = n if most is None else min(n, int(most))
    return np.arange(count, dtype=np.int64) * n // max(count, 1)
