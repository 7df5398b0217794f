"""Documents: rows of text data whose columns are checked and turned into texts and labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moedb.capture.jobs.text.sources.rows import Row, Source, missing_column, shown
from moedb.capture.jobs.text.values import LabelColumn, checked_text
from moedb.errors import DatasetError, UsageError

RESERVED_LABELS = ("document", "window")
"""Labels that every example gets."""


@dataclass(frozen=True)
class TextColumns:
    """The columns that are read, and as what.

    Attributes
    ----------
    text
        The column of texts.
    labels
        Columns that become labels of examples.
    words
        The column of lists of words; read where there are token labels.
    token_labels
        Columns of lists, a value for each word, that become labels of tokens.
    """

    text: str = "text"
    labels: tuple[str, ...] = ()
    words: str = "words"
    token_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.labels:
            if name in RESERVED_LABELS:
                raise UsageError(
                    f"--label {name}: every example gets a label of this name from moedb",
                    "rename the column",
                )
        for option, names in (("--label", self.labels), ("--token-label", self.token_labels)):
            for name in names:
                if names.count(name) > 1:
                    raise UsageError(f"{option} {name} is given twice; expected once")

    @property
    def options(self) -> dict[str, str]:
        """For each column that is read the option that names it."""
        found = {self.text: "--text-column", **dict.fromkeys(self.labels, "--label")}
        if self.token_labels:
            found |= {self.words: "--words-column"}
            found |= dict.fromkeys(self.token_labels, "--token-label")
        return found


@dataclass(frozen=True)
class Document:
    """A text with its labels.

    Attributes
    ----------
    row, place
        Its row in the data: the number, and where that stands.
    text
        The text, which is not blank.
    labels
        Its labels.
    words
        Its words; None where the row has none.
    word_labels
        For each key a value for each word.
    """

    row: int
    place: str
    text: str
    labels: Mapping[str, str]
    words: tuple[str, ...] | None
    word_labels: Mapping[str, tuple[str | None, ...]]


class DocumentReader:
    """Reads the documents of a source, once; counts what it passes over.

    Attributes
    ----------
    n_rows
        Rows read so far.
    n_blank
        Those of them without a text.
    """

    def __init__(self, source: Source, columns: TextColumns) -> None:
        source.check_columns(columns.options)
        self._source = source
        self._columns = columns
        self._labels = [LabelColumn(name, "--label") for name in columns.labels]
        self._token_labels = [LabelColumn(name, "--token-label") for name in columns.token_labels]
        self._seen: set[str] = set()
        self.n_rows = 0
        self.n_blank = 0

    def __iter__(self) -> Iterator[Document]:
        """Read documents.

        Raises
        ------
        DatasetError
            If a row is not what the columns are read as.
        """
        for row in self._source.rows(list(self._columns.options)):
            self.n_rows += 1
            self._seen.update(row.values)
            document = self._document(row)
            if document is None:
                self.n_blank += 1
            else:
                yield document

    def check_seen(self) -> None:
        """Check, at the end, that each column was in some row; there is a text in each.

        Raises
        ------
        DatasetError
            If one was in none.
        """
        for column, option in self._columns.options.items():
            if self.n_rows and column not in self._seen:
                raise missing_column(self._source.name, column, option, sorted(self._seen))

    def _document(self, row: Row) -> Document | None:
        column = self._columns.text
        if column not in row.values:
            raise missing_column(row.place, column, "--text-column", sorted(row.values))
        if row.values[column] is None:
            return None
        text = checked_text(row.values[column], column, row.place, "--text-column")
        if not text.strip():
            return None
        labels = {
            label.name: value
            for label in self._labels
            if (value := label.text(row.values.get(label.name), row.place)) is not None
        }
        words = self._words(row) if self._token_labels else None
        word_labels = {}
        if words is not None:
            word_labels = {
                label.name: self._values(row, label, words) for label in self._token_labels
            }
        return Document(row.number, row.place, text, labels, words, word_labels)

    def _words(self, row: Row) -> tuple[str, ...] | None:
        column = self._columns.words
        given = row.values.get(column)
        if given is None:
            return None
        what = f"--words-column {column}"
        words = _listed(given, what, row.place)
        checked = tuple(checked_text(word, column, row.place, "--words-column") for word in words)
        for index, word in enumerate(checked):
            if not word.strip():
                raise DatasetError(f"{what}: {row.place} has a blank for word {index}: {word!r}")
        return checked

    def _values(self, row: Row, label: LabelColumn, words: Sequence[str]) -> tuple[str | None, ...]:
        what = f"--token-label {label.name}"
        given = row.values.get(label.name)
        if given is None:
            return (None,) * len(words)
        values = _listed(given, what, row.place)
        if len(values) != len(words):
            raise DatasetError(
                f"{what}: {row.place} has {len(values)} values for {len(words)} words; "
                f"expected one for each word of {self._columns.words}"
            )
        return tuple(label.text(value, row.place) for value in values)


def _listed(value: Any, what: str, place: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise DatasetError(f"{what}: {place} has {shown(value)}; expected a list")
    return value
