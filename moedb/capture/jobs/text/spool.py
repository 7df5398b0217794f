"""Examples in a temporary file: written once, read as a sequence that is never all in memory.

The file is an Arrow IPC file in the folder for temporary files (``TMPDIR``), mapped into memory.
"""

import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import pyarrow as pa

from moedb.capture.examples import Example, ExamplesHash, StoredExamples
from moedb.errors import CaptureError

BATCH_EXAMPLES = 1024
BATCH_TOKENS = 1 << 14
"""What is written, and read by a walk over all, at a time; whichever is reached first."""


class SpooledExamples(StoredExamples):
    """Plain texts as examples, decoded from the file where they are asked for.

    Parameters
    ----------
    path
        The file, which goes when the examples do.
    split
        The split of all of them.
    keys, token_keys
        Their labels' keys, and those of their tokens.
    starts
        The first example of each batch of the file, and the number of all.
    token_texts
        The text of each token id.
    sha256, n_tokens
        Of all examples.
    """

    def __init__(
        self,
        path: Path,
        split: str,
        keys: Sequence[str],
        token_keys: Sequence[str],
        starts: Sequence[int],
        token_texts: Mapping[int, str],
        *,
        sha256: str,
        n_tokens: int,
    ) -> None:
        self._map = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._map)
        self._split = split
        self._keys = tuple(keys)
        self._token_keys = tuple(token_keys)
        self._starts = tuple(starts)
        self._token_texts = token_texts
        self._sha256 = sha256
        self._n_tokens = n_tokens
        # Where a mapped file can be deleted, no kill can leave it behind; Windows cannot.
        weakref.finalize(self, _remove, path)
        _remove(path)

    @property
    def sha256(self) -> str:
        """Hash over all examples, taken while they were written."""
        return self._sha256

    @property
    def n_tokens(self) -> int:
        """Tokens over all examples."""
        return self._n_tokens

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            if chosen.step == 1:
                return tuple(self._between(chosen.start, chosen.stop))
            return tuple(self[each] for each in chosen)
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return next(self._between(number, number + 1))

    def __iter__(self) -> Iterator[Example]:
        return self._between(0, len(self))

    def _between(self, first: int, end: int) -> Iterator[Example]:
        while first < end:
            batch = bisect_right(self._starts, first) - 1
            start, stop = self._starts[batch], min(self._starts[batch + 1], end)
            rows = self._reader.get_batch(batch).slice(first - start, stop - first)
            yield from self._decode(rows.to_pydict())
            first = stop

    def _decode(self, columns: dict[str, list[Any]]) -> Iterator[Example]:
        token_columns = [columns[f"token:{key}"] for key in self._token_keys]
        rows = zip(columns["text"], columns["token_ids"], columns["labels"], strict=True)
        for index, (text, token_ids, values) in enumerate(rows):
            labels = zip(self._keys, values, strict=True)
            lists = [(k, c[index]) for k, c in zip(self._token_keys, token_columns, strict=True)]
            yield Example(
                split=self._split,
                text=text,
                token_ids=tuple(token_ids),
                tokens=tuple(map(self._token_texts.__getitem__, token_ids)),
                labels={key: value for key, value in labels if value is not None},
                token_labels={key: tuple(given) for key, given in lists if given is not None},
            )


class ExampleSpool:
    """Writes the file, as a context; what is not finished is deleted.

    Parameters
    ----------
    split
        The split of all examples.
    keys, token_keys
        Their labels' keys, and those of their tokens; an example may lack some.
    token_texts
        The text of each token id, as the examples have it.
    """

    def __init__(
        self,
        split: str,
        keys: Sequence[str],
        token_keys: Sequence[str],
        token_texts: Mapping[int, str],
    ) -> None:
        self._split = split
        self._keys = tuple(keys)
        self._token_keys = tuple(token_keys)
        self._token_texts = token_texts
        self._hash = ExamplesHash()
        self._rows: list[Example] = []
        self._held = 0
        self._starts = [0]
        self._n_tokens = 0
        strings = pa.list_(pa.string())
        self._schema = pa.schema(
            [("text", pa.string()), ("token_ids", pa.list_(pa.int32())), ("labels", strings)]
            + [(f"token:{key}", strings) for key in self._token_keys]
        )
        self._path: Path | None = None
        self._writer: Any = None

    def __len__(self) -> int:
        """Examples so far."""
        return self._starts[-1] + len(self._rows)

    @property
    def n_tokens(self) -> int:
        """Tokens over the examples so far."""
        return self._n_tokens

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(prefix="moedb-", suffix=".arrow")
        os.close(handle)
        self._path = Path(name)
        self._writer = pa.ipc.new_file(name, self._schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is None:
            return
        _remove(self._path)
        self._path = None

    def add(self, example: Example) -> None:
        """Take the next example in: a plain text with token ids and no target.

        Raises
        ------
        CaptureError
            If the disk is full.
        """
        self._hash.add(example)
        self._rows.append(example)
        self._held += len(example)
        self._n_tokens += len(example)
        if len(self._rows) >= BATCH_EXAMPLES or self._held >= BATCH_TOKENS:
            self._flush()

    def finish(self) -> SpooledExamples:
        """Close the file and return its examples.

        Raises
        ------
        CaptureError
            If the disk is full.
        """
        if self._path is None:
            raise ValueError("the spool is not open")
        if self._rows:
            self._flush()
        try:
            self._writer.close()
        except OSError as error:
            raise self._no_room(error) from error
        path, self._path = self._path, None
        return SpooledExamples(
            path,
            self._split,
            self._keys,
            self._token_keys,
            self._starts,
            self._token_texts,
            sha256=self._hash.hexdigest(),
            n_tokens=self._n_tokens,
        )

    def _flush(self) -> None:
        rows, self._rows, self._held = self._rows, [], 0
        columns = [
            [example.text for example in rows],
            [example.token_ids for example in rows],
            [[example.labels.get(key) for key in self._keys] for example in rows],
            *([example.token_labels.get(key) for example in rows] for key in self._token_keys),
        ]
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, self._schema, strict=True)]
        try:
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        except OSError as error:
            raise self._no_room(error) from error
        self._starts.append(self._starts[-1] + len(rows))

    def _no_room(self, error: OSError) -> CaptureError:
        return CaptureError(
            f"cannot keep the tokenized texts in {self._path}: {error}",
            "free some space there, or name another folder: TMPDIR=FOLDER moedb ...",
        )


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # Still mapped, and this system keeps it for that long; the end of the examples deletes it.
        return
