"""The largest logits of each of several vectors, over a vocabulary that comes in pieces."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.analyses.experts.promoted.unembedding import Unembedding


class Largest:
    """For each of several vectors the ``n`` largest logits so far, and their tokens' places.

    Of equal ones the token with the smaller id comes first. They are compared in single precision,
    so that what differs by rounding alone is equal.
    """

    def __init__(self, n_vectors: int, n: int) -> None:
        import numpy as np

        self._n = n
        self.logits: NDArray[np.floating[Any]] = np.empty((n_vectors, 0), np.float32)
        self.places: NDArray[np.int64] = np.empty((n_vectors, 0), np.int64)

    def take(self, logits: "NDArray[np.floating[Any]]", first: int) -> None:
        """Take logits, (vector, token), of the tokens from place ``first`` on."""
        import numpy as np

        joined = np.concatenate([self.logits, logits], axis=1)
        single = joined.astype(np.float32, copy=False)
        places = np.broadcast_to(np.arange(first, first + logits.shape[1]), logits.shape)
        at = np.concatenate([self.places, places], axis=1)
        n = min(self._n, joined.shape[1])
        least = np.partition(single, single.shape[1] - n, axis=1)[:, single.shape[1] - n]
        kept = np.empty((len(joined), n), dtype=np.int64)
        for row, (own, bound) in enumerate(zip(single, least, strict=True)):
            among = np.flatnonzero(own >= bound)
            kept[row] = among[np.lexsort((at[row, among], -own[among]))][:n]
        self.logits = np.take_along_axis(joined, kept, axis=1)
        self.places = np.take_along_axis(at, kept, axis=1)


def largest_and_smallest(
    read: "NDArray[np.floating[Any]]", unembedding: "Unembedding", n: int
) -> tuple[Largest, Largest]:
    """The largest logits of vectors, and the largest of their opposites.

    Parameters
    ----------
    read
        (vector, d_model): what the unembedding reads.
    unembedding
        It.
    n
        How many.
    """
    promotes, suppresses = Largest(len(read), n), Largest(len(read), n)
    for span, rows in unembedding.pieces():
        logits = read @ rows.T.astype(read.dtype, copy=False)
        promotes.take(logits, span.start)
        suppresses.take(-logits, span.start)
    return promotes, suppresses
