"""The end of a run's model, as the run keeps it: vectors of the stream read as tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moedb.errors import ArrayNotFoundError
from moedb.schemas.arrays import FINAL_NORM, SHARD_ROWS, UNEMBEDDING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

PIECE_ROWS = 8 * SHARD_ROWS
"""Tokens of the vocabulary whose rows are in memory at a time, where they are not kept there."""

HELD_BYTES = 2**29
"""An unembedding of no more bytes is read once, and kept in memory."""

_VOCABULARY = """
select
    vocabulary.token_id,
    vocabulary.token
from vocabulary
where vocabulary.run_id = cast($run as varchar)
order by vocabulary.token_id
""".strip()


class Unembedding:
    """The final norm's gain and the unembedding of a run's model.

    Rows of the unembedding that the tokenizer has no token for are passed over.

    Parameters
    ----------
    reader
        Reads the store.
    run
        The run.

    Attributes
    ----------
    token_ids, tokens
        The tokens of the vocabulary.

    Raises
    ------
    ArrayNotFoundError
        If the run does not keep them.
    """

    def __init__(self, reader: "SnapshotReader", run: "RunSnapshot") -> None:
        import numpy as np

        check_kept(run)
        [layer] = run.manifest.arrays[UNEMBEDDING]
        gain = reader.array(run.run_id, FINAL_NORM, layer)
        self._weight = reader.array(run.run_id, UNEMBEDDING, layer)
        self._gain = np.asarray(gain[:]).astype(np.float64)
        end = run.manifest.model_end
        self._centers = bool(end and end.centers)
        self._factor = end.factor if end else 1.0
        rows = reader.sql(_VOCABULARY, {"run": run.run_id}).fetchall()
        self.token_ids = np.array([token_id for token_id, _ in rows], dtype=np.int64)
        self.tokens = [str(token) for _, token in rows]
        self._held: list[tuple[slice, NDArray[np.floating[Any]]]] | None = None

    def read_by(self, vectors: "NDArray[np.floating[Any]]") -> "NDArray[np.floating[Any]]":
        """What the unembedding reads of vectors of the stream, (vector, d_model).

        They are centred where the norm centres, and multiplied by its gain; what the norm divides
        by depends on the rest of the stream, and is left out.
        """
        import numpy as np

        found = vectors.astype(np.float64)
        if self._centers:
            found -= found.mean(axis=-1, keepdims=True)
        return found * (self._gain * self._factor)

    def pieces(self) -> "Iterator[tuple[slice, NDArray[np.floating[Any]]]]":
        """The rows of the vocabulary's tokens, (token, d_model), some at a time."""
        if self._held is not None:
            yield from self._held
            return
        n_rows, width = self._weight.shape
        is_held = n_rows * width * self._weight.dtype.itemsize <= HELD_BYTES
        found = []
        for piece in self._read():
            if is_held:
                found.append(piece)
            yield piece
        if is_held:
            self._held = found

    def _read(self) -> "Iterator[tuple[slice, NDArray[np.floating[Any]]]]":
        import numpy as np

        for first in range(0, self._weight.shape[0], PIECE_ROWS):
            start, end = np.searchsorted(self.token_ids, (first, first + PIECE_ROWS)).tolist()
            if start < end:
                rows = np.asarray(self._weight[first : first + PIECE_ROWS])
                yield slice(start, end), rows[self.token_ids[start:end] - first]


def check_kept(run: "RunSnapshot") -> None:
    """Check that a run keeps its model's end.

    Raises
    ------
    ArrayNotFoundError
        If it does not.
    """
    if not run.manifest.arrays.get(UNEMBEDDING):
        raise ArrayNotFoundError(
            f"run {run.title} keeps no unembedding, without which outputs are not read as tokens",
            "capture again with --arrays unembedding,expert_outputs",
        )
