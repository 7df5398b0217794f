"""Rows of arrays as lists of SQL: ``expert_output(run_id, layer, array_row, rank)``.

DuckDB calls such a function with some two thousand rows at a time, as Arrow. What it asks for is
read from Zarr by whole chunks, neighbours together, and the last chunks are kept: the ranks of a
token stand in one, and so do most tokens of the next call.
"""

from __future__ import annotations

import atexit
import inspect
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError
from moedb.schemas.arrays import ARRAY_FUNCTIONS, CHUNK_ROWS, SHARD_ROWS, ArraySpec

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import zarr
    from numpy.typing import NDArray

OpenArray = Callable[[str, str, "int | None"], "zarr.Array[Any]"]
"""Opens an array of a run by its name and layer; None where it has one layer alone."""

KEPT_BYTES = 1 << 28
"""Bytes of chunks that are kept for the next call."""

_WORD = re.compile(r"\w+")
_CHUNKS_OF_SHARD = SHARD_ROWS // CHUNK_ROWS


class ArrayFunctions:
    """The functions of SQL that read rows of arrays, each made once a statement names it.

    Parameters
    ----------
    connection
        Where they are made.
    open_array
        Opens an array.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, open_array: OpenArray) -> None:
        self._connection = connection
        self._chunks = KeptChunks(open_array)
        self._defined: set[str] = set()

    def define(self, sql: str) -> None:
        """Make the functions that some SQL names."""
        for name in functions_named_in(sql):
            if name in self._defined:
                continue
            spec = ARRAY_FUNCTIONS[name]
            self._connection.create_function(  # type: ignore[call-overload]  # texts will do
                name,
                _reader_of(spec, self._chunks),
                list(spec.arguments.values()),
                "FLOAT[]",
                type="arrow",
                null_handling="special",
            )
            if not self._defined:
                # DuckDB complains on stderr of functions that outlive the interpreter
                atexit.register(_remove_at_exit, weakref.ref(self))
            self._defined.add(name)

    def close(self) -> None:
        """Take the functions away, and forget what was read."""
        import duckdb

        for name in self._defined:
            try:
                self._connection.remove_function(name)
            except duckdb.Error:  # the connection is closed
                break
        self._defined.clear()
        self._chunks.clear()


def functions_named_in(sql: str) -> list[str]:
    """The functions that some SQL may call: their names stand in it."""
    words = set(_WORD.findall(sql.lower()))
    return [name for name in ARRAY_FUNCTIONS if name in words]


def _remove_at_exit(reference: weakref.ref[ArrayFunctions]) -> None:
    functions = reference()
    if functions is not None:
        functions.close()


def _reader_of(spec: ArraySpec, chunks: KeptChunks) -> Callable[..., pa.Array]:
    """What DuckDB calls: columns come in as Arrow, a list for each row goes out."""

    def read(*columns: pa.ChunkedArray) -> pa.Array:
        return _read(spec, chunks, dict(zip(spec.arguments, columns, strict=True)))

    # DuckDB counts the parameters, and looks annotations up
    kind = inspect.Parameter.POSITIONAL_ONLY
    parameters = [inspect.Parameter(name, kind) for name in spec.arguments]
    setattr(read, "__signature__", inspect.Signature(parameters))  # noqa: B010
    return read


def _read(spec: ArraySpec, chunks: KeptChunks, given: dict[str, pa.ChunkedArray]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    n_rows = len(given["run_id"])
    known = np.ones(n_rows, dtype=bool)
    for column in given.values():
        known &= np.asarray(column.is_valid())
    numbers = {
        name: np.asarray(column.fill_null(0), dtype=np.int64)
        for name, column in given.items()
        if name != "run_id"
    }
    # of the run as of a number, so that rows of one array are found together
    coded = given["run_id"].combine_chunks().fill_null("").dictionary_encode()
    runs = coded.dictionary.to_pylist()
    run_of_row = np.asarray(coded.indices, dtype=np.int64)
    layers = numbers.pop("layer", None)
    slots = numbers.pop(spec.slot, None) if spec.slot else None
    ((row_name, rows),) = numbers.items()

    found: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []
    lengths = np.zeros(n_rows, dtype=np.int64)
    of_layer = np.zeros(n_rows, dtype=np.int64) if layers is None else layers
    for run_code, layer in np.unique(np.stack([run_of_row, of_layer])[:, known], axis=1).T:
        here = np.flatnonzero(known & (run_of_row == run_code) & (of_layer == layer))
        asked = _Asked(spec, runs[run_code], None if layers is None else int(layer), row_name)
        values = chunks.read(asked, rows[here], None if slots is None else slots[here])
        lengths[here] = values.shape[1]
        found.append((here, values))

    ends = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    flat = np.empty(int(ends[-1]), dtype=np.float32)
    for here, values in found:
        flat[ends[here][:, None] + np.arange(values.shape[1])] = values
    return pa.ListArray.from_arrays(
        pa.array(ends.astype(np.int32)), pa.array(flat), mask=pa.array(~known)
    )


class _Asked:
    """An array as SQL asks for it, and what is wrong where it has not what is asked for."""

    def __init__(self, spec: ArraySpec, run: str, layer: int | None, row_name: str) -> None:
        self.spec, self.run, self.layer, self._row_name = spec, run, layer, row_name

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.spec.name, self.run, self.layer

    def check(
        self,
        stored: zarr.Array[Any],
        rows: NDArray[np.int64],
        slots: NDArray[np.int64] | None,
    ) -> None:
        self._check_range(self._row_name, rows, stored.shape[0])
        if slots is not None:
            self._check_range(str(self.spec.slot), slots, stored.shape[1])

    def _check_range(self, name: str, numbers: NDArray[np.int64], size: int) -> None:
        outside = numbers[(numbers < 0) | (numbers >= size)]
        if len(outside):
            of_layer = "" if self.layer is None else f" of layer {self.layer}"
            raise UsageError(
                f"{self.spec.function}: there is no {name} {outside[0]} in run {self.run}: in its "
                f"{self.spec.name}{of_layer} it is 0 to {size - 1}",
                f"it is called as {self.spec.call}",
            )


class KeptChunks:
    """Rows of arrays, read by whole chunks, of which the last ones are kept.

    Parameters
    ----------
    open_array
        Opens an array.
    most_bytes
        Bytes that are kept at most.
    """

    def __init__(self, open_array: OpenArray, most_bytes: int = KEPT_BYTES) -> None:
        self._open = open_array
        self._most_bytes = most_bytes
        self._arrays: dict[tuple[str, str, int | None], zarr.Array[Any]] = {}
        self._kept: OrderedDict[tuple[Any, ...], NDArray[np.floating[Any]]] = OrderedDict()
        self._n_bytes = 0
        # threads of DuckDB that ask at once wait for each other, lest a chunk be read twice
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._arrays.clear()
            self._kept.clear()
            self._n_bytes = 0

    def read(
        self, asked: _Asked, rows: NDArray[np.int64], slots: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Return (row, width): the vectors of some rows, in any order, some of them twice.

        Raises
        ------
        RunNotFoundError, ArrayNotFoundError
            If there is no such run, or it keeps no such array.
        UsageError
            If the array has no such row, or no such slot of it.
        """
        import numpy as np

        with self._lock:
            stored = self._array(asked)
            asked.check(stored, rows, slots)
            vectors = np.empty((len(rows), stored.shape[-1]), dtype=np.float32)
            order = np.argsort(rows, kind="stable")
            numbers, first = np.unique(rows[order] // CHUNK_ROWS, return_index=True)
            ends = [*first[1:], len(rows)]
            places = dict(
                zip(numbers.tolist(), zip(first.tolist(), ends, strict=True), strict=True)
            )
            for number, chunk in self._chunks(asked, stored, numbers.tolist()):
                here = order[slice(*places[number])]
                inside = rows[here] - number * CHUNK_ROWS
                vectors[here] = chunk[inside] if slots is None else chunk[inside, slots[here]]
            return vectors

    def _array(self, asked: _Asked) -> zarr.Array[Any]:
        if asked.key not in self._arrays:
            self._arrays[asked.key] = self._open(asked.run, asked.spec.name, asked.layer)
        return self._arrays[asked.key]

    def _chunks(
        self, asked: _Asked, stored: zarr.Array[Any], numbers: list[int]
    ) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Give chunks by their ascending numbers, read together where they are neighbours."""
        import numpy as np

        missing = [number for number in numbers if (asked.key, number) not in self._kept]
        stretch_of = {number: stretch for stretch in _stretches(missing) for number in stretch}
        for number in numbers:
            if (asked.key, number) not in self._kept:
                # one that was there may have made room meanwhile
                stretch = stretch_of.get(number, range(number, number + 1))
                start = stretch.start * CHUNK_ROWS
                values = np.asarray(stored[start : stretch.stop * CHUNK_ROWS])
                for place, each in enumerate(stretch):
                    chunk = values[place * CHUNK_ROWS : (place + 1) * CHUNK_ROWS]
                    self._keep((asked.key, each), chunk, len(stretch))
            self._kept.move_to_end((asked.key, number))
            yield number, self._kept[asked.key, number]

    def _keep(self, key: tuple[Any, ...], chunk: NDArray[np.floating[Any]], n_read: int) -> None:
        """Keep a chunk, beside the others that were read with it, whatever they take."""
        before = self._kept.pop(key, None)
        self._n_bytes -= 0 if before is None else before.nbytes
        self._kept[key] = chunk
        self._n_bytes += chunk.nbytes
        while self._n_bytes > self._most_bytes and len(self._kept) > n_read:
            _, oldest = self._kept.popitem(last=False)
            self._n_bytes -= oldest.nbytes


def _stretches(numbers: list[int]) -> Iterator[range]:
    """Divide ascending numbers of chunks into neighbours that lie in one shard.

    Examples
    --------
    >>> list(_stretches([0, 1, 3, 14, 15, 16]))
    [range(0, 2), range(3, 4), range(14, 16), range(16, 17)]
    """
    start = end = -1
    for number in numbers:
        if number != end or number % _CHUNKS_OF_SHARD == 0:
            if end > start:
                yield range(start, end)
            start = number
        end = number + 1
    if end > start:
        yield range(start, end)
