"""What every reader of text data gives: rows, each with the place it stands at."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moedb.errors import DatasetError, did_you_mean


@dataclass(frozen=True)
class Row:
    """One row of text data.

    Attributes
    ----------
    number
        Its number in the dataset, from 0.
    place
        Where it stands, for messages: ``reviews.jsonl, line 3``.
    values
        For each column its value; a reader may give more columns than it was asked for.
    """

    number: int
    place: str
    values: Mapping[str, Any]


class Source(ABC):
    """Text data that can be read from the beginning, as often as need be."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The dataset's name: a file's, a folder's, or a hub id."""

    @property
    @abstractmethod
    def split(self) -> str:
        """The split that its examples are of."""

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """What identifies the data: files and their hashes, or the hub's revision."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about what is read."""
        return ()

    @abstractmethod
    def columns(self) -> tuple[str, ...] | None:
        """The columns, where they are known before reading."""

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read the rows, one after the other, with at least the ``columns`` that they have."""

    def check_columns(self, wanted: Mapping[str, str]) -> None:
        """Check that columns are there, where that is known before reading.

        Parameters
        ----------
        wanted
            For each column the option that names it.

        Raises
        ------
        DatasetError
            If one is not.
        """
        known = self.columns()
        for column, option in wanted.items():
            if known is not None and column not in known:
                raise missing_column(self.name, column, option, known)


def missing_column(place: str, column: str, option: str, known: Sequence[str]) -> DatasetError:
    """The error of a column that is not there."""
    return DatasetError(
        f"{option} {column}: {place} has no column {column!r}; {did_you_mean(column, known)}"
    )


def shown(value: object, limit: int = 60) -> str:
    """A value, cut short for a message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
