"""Documents and IOI sentences as batches of tokens, each a function of the seed and the step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from moedb.capture.jobs.qwen_ioi import IOITemplates, SentenceStream, is_held_out_pair
from moedb.errors import DatasetError, UsageError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CorpusText:
    """One row of a corpus; the columns it lacks read as ``unknown``."""

    text: str
    domain: str
    source: str
    license: str


@dataclass(frozen=True)
class TrainingBatch:
    """Rows of tokens, padded on the right.

    Attributes
    ----------
    input_ids : int64[row, position]
    mask : bool[row, position]
        False on padding.
    weights : float32[row, position]
        Weight of each token as a thing to predict; 0 on padding.
    answers : bool[row, position]
        Where the answer of an IOI sentence stands.
    """

    input_ids: IntArray
    mask: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32]
    answers: npt.NDArray[np.bool_]


def read_corpus(path: str | Path) -> list[CorpusText]:
    """Read a Parquet file with a ``text`` column.

    Parameters
    ----------
    path : str or Path
        The file. Its columns domain, source and license are kept where it has them.

    Returns
    -------
    list of CorpusText
        Rows without text are left out.

    Raises
    ------
    UsageError
        When the file cannot be read.
    DatasetError
        When it has no ``text`` column of strings, or no row.
    """
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such corpus; valid: a Parquet file with a text column")
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            if "text" not in present:
                raise DatasetError(
                    f"{path}: no text column; valid: a Parquet file with the column text, and "
                    f"domain, source and license if there are any. Found: {', '.join(present)}"
                )
            columns = [c for c in ("text", "domain", "source", "license") if c in present]
            table = file.read(columns=columns)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error
    documents = []
    for row in table.to_pylist():
        if not isinstance(row["text"], str | None):
            raise DatasetError(f"{path}: the text column holds {row['text']!r:.40}; valid: texts")
        if row["text"]:
            known = {key: str(row.get(key) or "unknown") for key in ("domain", "source", "license")}
            documents.append(CorpusText(text=row["text"], **known))
    if not documents:
        raise DatasetError(f"{path}: no row has a text")
    return documents


def is_held_out_text(text: str, fraction: float) -> bool:
    """Whether a document is kept out of training: a function of the text alone."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def split_corpus(
    documents: Sequence[CorpusText], fraction: float
) -> tuple[list[CorpusText], list[CorpusText]]:
    """Return the documents to train on and the held-out ones."""
    train = [d for d in documents if not is_held_out_text(d.text, fraction)]
    held_out = [d for d in documents if is_held_out_text(d.text, fraction)]
    if not train:
        raise DatasetError(f"none of the {len(documents)} documents is left to train on")
    return train, held_out


def tokenize_documents(documents: Sequence[CorpusText], tokenizer: Any) -> list[IntArray]:
    """Return the tokens of each document, ended by the end-of-text token."""
    if not documents:
        return []
    encoded = tokenizer([d.text for d in documents], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return [np.array([*ids, tokenizer.eos_token_id], dtype=np.int64) for ids in encoded]


def cut_pieces(tokens: Sequence[IntArray], max_length: int) -> list[IntArray]:
    """Cut documents into pieces of at most max_length tokens; a piece of 1 token is left out."""
    pieces = []
    for ids in tokens:
        for start in range(0, len(ids), max_length):
            piece = ids[start : start + max_length]
            if len(piece) > 1:
                pieces.append(piece)
    return pieces


def pad_rows(rows: Sequence[IntArray], pad_id: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return rows as one array padded on the right, and where they are not padding."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return ids, mask


class CorpusBatches:
    """The corpus batch of any step.

    Every epoch goes through all pieces in an order of its own. Pieces of like length share a
    batch, whose size with padding stays within a number of tokens.
    """

    _POOL = 512

    def __init__(
        self, pieces: Sequence[IntArray], *, tokens_per_batch: int, pad_id: int, seed: int
    ) -> None:
        if not pieces:
            raise DatasetError("the corpus has no piece of 2 tokens or more to train on")
        self._pieces = list(pieces)
        self._tokens = tokens_per_batch
        self._pad_id = pad_id
        self._seed = seed
        self._starts = [0]
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def _plan(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] == epoch:
            return self._epoch[1]
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._pieces))
        batches: list[list[int]] = []
        for start in range(0, len(order), self._POOL):
            pool = sorted(order[start : start + self._POOL], key=lambda i: len(self._pieces[i]))
            rows: list[int] = []
            for index in pool:
                if rows and (len(rows) + 1) * len(self._pieces[index]) > self._tokens:
                    batches.append(rows)
                    rows = []
                rows.append(int(index))
            batches.append(rows)
        plan = [batches[i] for i in rng.permutation(len(batches))]
        self._epoch = (epoch, plan)
        return plan

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of a step, counted from 0."""
        while self._starts[-1] <= step:
            self._starts.append(self._starts[-1] + len(self._plan(len(self._starts) - 1)))
        epoch = next(e for e, stop in enumerate(self._starts[1:]) if step < stop)
        rows = self._plan(epoch)[step - self._starts[epoch]]
        ids, mask = pad_rows([self._pieces[i] for i in rows], self._pad_id)
        return TrainingBatch(ids, mask, mask.astype(np.float32), np.zeros_like(mask))


class IOIBatches:
    """The IOI sentences of any step; pairs of names that are held out never occur."""

    def __init__(
        self,
        templates: IOITemplates,
        tokenizer: Any,
        *,
        rows_per_batch: int,
        answer_weight: float,
        held_out_pair_fraction: float,
        seed: int,
    ) -> None:
        self._stream = SentenceStream(
            templates,
            seed=seed,
            pair_filter=lambda a, b: not is_held_out_pair(a, b, held_out_pair_fraction),
        )
        self._tokenizer = tokenizer
        self._rows = rows_per_batch
        self._answer_weight = answer_weight

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of a step, counted from 0."""
        sentences = self._stream.take(self._rows, start=step * self._rows)
        encoded = self._tokenizer([s.text for s in sentences], add_special_tokens=False)
        rows = [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        ids, mask = pad_rows(rows, self._tokenizer.pad_token_id)
        answers = np.zeros_like(mask)
        answers[np.arange(len(rows)), [len(row) - 1 for row in rows]] = True
        weights = mask.astype(np.float32)
        weights[answers] = self._answer_weight
        return TrainingBatch(ids, mask, weights, answers)


def held_out_batches(
    pieces: Sequence[IntArray], *, tokens_per_batch: int, pad_id: int
) -> Iterator[tuple[list[int], IntArray, npt.NDArray[np.bool_]]]:
    """Yield pieces, longest first, as (indices of the pieces, padded tokens, mask)."""
    order = sorted(range(len(pieces)), key=lambda i: (-len(pieces[i]), i))
    start = 0
    while start < len(order):
        rows = max(1, tokens_per_batch // len(pieces[order[start]]))
        chosen = order[start : start + rows]
        ids, mask = pad_rows([pieces[i] for i in chosen], pad_id)
        yield chosen, ids, mask
        start += rows
