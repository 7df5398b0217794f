"""How often each cluster counts in each draw, and the rows that views have then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.rows import Rows

MOST_LEFT_OUT = 200
"""Of more clusters than this several are left out together, at random: enough to tell a spread."""


def numbered_groups(n_clusters: int, n_groups: int, seed: int) -> "NDArray[np.int64]":
    """Put clusters together at random into groups whose sizes differ by one at most.

    Returns
    -------
    (cluster,): the group of each.
    """
    import numpy as np

    groups = np.arange(n_clusters) % max(1, min(n_groups, n_clusters))
    if n_groups < n_clusters:
        np.random.default_rng(seed).shuffle(groups)
    return groups


def drawn_again(n_clusters: int, samples: int, seed: int, stream: int = 0) -> "NDArray[np.float64]":
    """Draw as many clusters as there are, with replacement.

    Parameters
    ----------
    n_clusters
        How many there are.
    samples
        How often.
    seed
        The seed.
    stream
        Another number for draws that are independent of these.

    Returns
    -------
    (sample, cluster): how often each was drawn.
    """
    import numpy as np

    rng = np.random.default_rng([seed, stream] if stream else seed)
    even = np.full(n_clusters, 1 / max(n_clusters, 1))
    drawn: NDArray[np.int64] = rng.multinomial(n_clusters, even, samples)
    return drawn.astype(np.float64)


def left_out(n_clusters: int, seed: int) -> "NDArray[np.float64]":
    """Leave out one cluster, or one group of them, after the other.

    Returns
    -------
    (group, cluster): 0 for those left out, 1 for the rest.
    """
    import numpy as np

    groups = numbered_groups(n_clusters, MOST_LEFT_OUT, seed)
    n_groups = int(groups.max()) + 1 if n_clusters else 0
    kept: NDArray[np.bool_] = groups[None, :] != np.arange(n_groups)[:, None]
    return kept.astype(np.float64)


@dataclass(frozen=True)
class Drawn:
    """The rows of a view for many draws.

    Attributes
    ----------
    cells
        The columns that are the same in every draw, each (cell,).
    sums
        The columns that differ, by their names, each (cell, draw).
    times
        (cell, draw): how often a draw has the row; whether it has it, where no row is there twice.
    """

    cells: "Rows"
    sums: "Mapping[str, NDArray[Any]]"
    times: "NDArray[Any]"

    @property
    def n_draws(self) -> int:
        """How many draws there are."""
        return int(self.times.shape[1])

    def table(self) -> "pa.Table":
        """Return all rows of all draws, ``moedb_draw`` the number of each."""
        import numpy as np
        import pyarrow as pa

        n_cells, n_draws = self.times.shape
        numbers = np.broadcast_to(np.arange(n_draws, dtype=np.int32), self.times.shape)
        if self.times.dtype == np.bool_:
            at = np.repeat(np.arange(n_cells, dtype=np.int32), self.times.sum(axis=1))
            columns = {"moedb_draw": pa.array(numbers[self.times])}
            sums = {name: values[self.times] for name, values in self.sums.items()}
        else:
            times = self.times.ravel()
            cells = np.arange(n_cells, dtype=np.int32)
            at = np.repeat(np.repeat(cells, n_draws), times)
            columns = {"moedb_draw": pa.array(np.repeat(numbers.ravel(), times))}
            sums = {name: np.repeat(values.ravel(), times) for name, values in self.sums.items()}
        columns |= {name: _taken(values, at) for name, values in self.cells.items()}
        return pa.table(columns | {name: pa.array(values) for name, values in sums.items()})


def one_below_the_other(parts: "Sequence[Drawn]") -> Drawn:
    """Put the rows of several parts one below the other."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Drawn(
        {name: np.concatenate([part.cells[name] for part in parts]) for name in first.cells},
        {name: np.concatenate([part.sums[name] for part in parts]) for name in first.sums},
        np.concatenate([part.times for part in parts]),
    )


def _taken(values: Any, at: "NDArray[np.int32]") -> "pa.Array":
    """Texts are written once for each that differs."""
    import numpy as np
    import pyarrow as pa

    array = np.asarray(values)
    if array.dtype == object or array.dtype.kind == "U":
        texts = pa.array(array.astype(object)).dictionary_encode()
        return pa.DictionaryArray.from_arrays(texts.indices.take(pa.array(at)), texts.dictionary)
    return pa.array(array[at])
