"""The job ``text``: documents of any origin through a language model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moedb.capture.examples import Dataset, Example
from moedb.capture.jobs.text.alignment import (
    WordNotFoundError,
    locate_words,
    stretch_labels,
    stretches_of_tokens,
)
from moedb.capture.jobs.text.documents import RESERVED_LABELS, Document, DocumentReader, TextColumns
from moedb.capture.jobs.text.shuffling import BUFFER_CHARACTERS, BUFFER_DOCUMENTS, shuffled
from moedb.capture.jobs.text.sources.rows import Source, shown
from moedb.capture.jobs.text.spool import ExampleSpool, SpooledExamples
from moedb.capture.jobs.text.tokenization import (
    TokenizedDocument,
    TokenTexts,
    context_length,
    tokenize,
)
from moedb.capture.jobs.text.windows import DEFAULT_MAX_LENGTH, window_text, windows
from moedb.errors import DatasetError, UsageError

JOB = "text"
UNALIGNED = ("fail", "skip", "join")
"""What to do where a row's words are not in its text."""


@dataclass(frozen=True)
class TextOptions:
    """What a user can choose about the examples that a text becomes.

    Attributes
    ----------
    columns
        The columns that are read, and as what.
    max_length
        Tokens of an example at most; None for the model's context, 1024 at most.
    stride
        Tokens from one window of a document to the next; None for ``max_length``.
    truncate
        Keep only the first window of each document.
    max_examples, max_tokens
        Stop before there are more; examples stay whole.
    shuffle, seed
        Shuffle the documents through a buffer.
    unaligned
        Where a row's words are not in its text: ``fail``, ``skip`` the token labels of the row, or
        ``join`` the labels of the words that a run of letters stands for, and skip where even that
        fails.
    """

    columns: TextColumns = field(default_factory=TextColumns)
    max_length: int | None = None
    stride: int | None = None
    truncate: bool = False
    max_examples: int | None = None
    max_tokens: int | None = None
    shuffle: bool = False
    seed: int = 0
    unaligned: str = UNALIGNED[0]

    def __post_init__(self) -> None:
        for value, option in (
            (self.max_length, "--max-length"),
            (self.stride, "--stride"),
            (self.max_examples, "--max-examples"),
            (self.max_tokens, "--max-tokens"),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{option} {value}: expected 1 or more")
        if self.truncate and self.stride is not None:
            raise UsageError(f"--stride {self.stride} has no meaning with --truncate; drop one")
        if self.unaligned not in UNALIGNED:
            raise UsageError(f"--unaligned {self.unaligned}: valid are {', '.join(UNALIGNED)}")

    def window_sizes(self, context: int | None) -> tuple[int, int]:
        """Tokens of a window at most, and from one window to the next.

        Raises
        ------
        UsageError
            If they do not fit the model's context or each other.
        """
        if context is not None and (self.max_length or 0) > context:
            raise UsageError(
                f"--max-length {self.max_length}: the model takes in {context} tokens at most",
                f"--max-length {context}, or less",
            )
        max_length = self.max_length or min(context or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
        stride = self.stride or max_length
        if stride > max_length:
            raise UsageError(
                f"--stride {stride}: expected {max_length} (--max-length) at most, or tokens "
                "between the windows are lost"
            )
        return max_length, stride

    def describe(self, max_length: int, stride: int) -> dict[str, Any]:
        """The choices, resolved, for the run's configuration."""
        columns = self.columns
        found: dict[str, Any] = {
            "text_column": columns.text,
            "labels": sorted(columns.labels),
            "words_column": columns.words if columns.token_labels else None,
            "token_labels": sorted(columns.token_labels),
            "unaligned": self.unaligned if columns.token_labels else None,
            "max_length": max_length,
            "stride": None if self.truncate else stride,
            "truncate": self.truncate,
            "max_examples": self.max_examples,
            "max_tokens": self.max_tokens,
            "shuffle": self.shuffle,
        }
        if self.shuffle:
            found |= {
                "seed": self.seed,
                "shuffle_documents": BUFFER_DOCUMENTS,
                "shuffle_characters": BUFFER_CHARACTERS,
            }
        return found


def text_dataset(tokenizer: Any, *, source: Source, options: TextOptions) -> Dataset:
    """Read texts and cut them into examples, which wait in a temporary file.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    source
        The texts.
    options
        What to make of them.

    Raises
    ------
    DatasetError, UsageError
        If the data or an option is not what it has to be.
    CaptureError
        If there is no room for the temporary file.
    """
    max_length, stride = options.window_sizes(context_length(tokenizer))
    reader = DocumentReader(source, options.columns)
    maker = _ExampleMaker(source.split, options, TokenTexts(tokenizer), max_length, stride)
    documents = shuffled(reader, options.seed) if options.shuffle else iter(reader)
    examples = maker.spool(tokenize(tokenizer, documents))
    reader.check_seen()
    if not len(examples):
        raise _nothing(source, reader, maker)
    return Dataset(
        JOB,
        source.name,
        {"source": dict(source.config), **options.describe(max_length, stride)},
        examples,
        notes=(*source.notes, *_notes(reader, maker)),
    )


class _ExampleMaker:
    """Cuts tokenized documents into examples, up to a limit; counts what it cannot use."""

    def __init__(
        self,
        split: str,
        options: TextOptions,
        token_texts: TokenTexts,
        max_length: int,
        stride: int,
    ) -> None:
        self._split = split
        self._options = options
        self._token_texts = token_texts
        self._max_length = max_length
        self._stride = stride
        self.n_without_tokens = 0
        self.n_unaligned = 0
        self.first_unaligned = ""
        self.too_long: int | None = None

    def spool(self, documents: Iterator[TokenizedDocument]) -> SpooledExamples:
        """Write the examples of documents until there are enough."""
        columns = self._options.columns
        keys = (*RESERVED_LABELS, *columns.labels)
        with ExampleSpool(self._split, keys, columns.token_labels, self._token_texts) as spool:
            for example in self._examples(documents):
                most = self._options.max_tokens
                if most is not None and spool.n_tokens + len(example) > most:
                    self.too_long = len(example)
                    break
                spool.add(example)
                if len(spool) == self._options.max_examples:
                    break
            return spool.finish()

    def _examples(self, documents: Iterable[TokenizedDocument]) -> Iterator[Example]:
        for tokenized in documents:
            if not tokenized.token_ids:
                self.n_without_tokens += 1
                continue
            token_labels = self._token_labels(tokenized)
            document = tokenized.document
            cut = windows(len(tokenized.token_ids), self._max_length, self._stride)
            for number, window in enumerate(cut):
                token_ids = tuple(tokenized.token_ids[window.start : window.stop])
                yield Example(
                    split=self._split,
                    text=window_text(document.text, tokenized.offsets, window),
                    token_ids=token_ids,
                    tokens=tuple(map(self._token_texts.__getitem__, token_ids)),
                    labels={
                        "document": str(document.row),
                        "window": str(number),
                        **document.labels,
                    },
                    token_labels={
                        key: tuple(values[window.start : window.stop])
                        for key, values in token_labels.items()
                    },
                )
                if self._options.truncate:
                    break

    def _token_labels(self, tokenized: TokenizedDocument) -> Mapping[str, list[str | None]]:
        document = tokenized.document
        if document.words is None:
            return {}
        join = self._options.unaligned == "join"
        try:
            stretches = locate_words(document.text, document.words, join=join)
        except WordNotFoundError as error:
            failure = self._unaligned(document, error)
            if self._options.unaligned == "fail":
                raise failure from error
            self.n_unaligned += 1
            self.first_unaligned = self.first_unaligned or document.place
            return {}
        owners = stretches_of_tokens(document.text, tokenized.offsets, stretches)
        found = {}
        for key, values in document.word_labels.items():
            labels = stretch_labels(stretches, values)
            found[key] = [None if owner is None else labels[owner] for owner in owners]
        return found

    def _unaligned(self, document: Document, error: WordNotFoundError) -> DatasetError:
        words = document.words or ()
        there = document.text[error.position : error.position + 30]
        return DatasetError(
            f"--words-column {self._options.columns.words}: {document.place}: word {error.word}, "
            f"{words[error.word]!r}, is not in the text where it is expected (character "
            f"{error.position}): {shown(there)}",
            "--unaligned join takes a run of letters as a contraction of words (French du = de + "
            "le); --unaligned skip leaves the tokens of such rows without labels",
        )


def _notes(reader: DocumentReader, maker: _ExampleMaker) -> Iterator[str]:
    if reader.n_blank:
        yield f"skipped {reader.n_blank:,} of {reader.n_rows:,} rows read: no text in them"
    if maker.n_without_tokens:
        yield f"skipped {maker.n_without_tokens:,} documents: the tokenizer gives no tokens"
    if maker.n_unaligned:
        yield (
            f"{maker.n_unaligned:,} documents get no token labels: their words are not in their "
            f"texts (the first is {maker.first_unaligned})"
        )


def _nothing(source: Source, reader: DocumentReader, maker: _ExampleMaker) -> DatasetError:
    if maker.too_long is not None:
        return DatasetError(
            f"--max-tokens: the first example has {maker.too_long} tokens, which is more",
            f"--max-tokens {maker.too_long}, or smaller examples with --max-length",
        )
    if not reader.n_rows:
        return DatasetError(f"the dataset {source.name} is empty: it has no rows")
    return DatasetError(
        f"the dataset {source.name} has no text: all {reader.n_rows:,} rows read are blank in "
        "the column of texts",
        "--text-column NAME reads another",
    )
