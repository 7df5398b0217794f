"""Which tokens a probe is asked about, and which of them are the concept's."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError, did_you_mean
from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.database import Database

_TOKENS = """
select token_idx, example_id, array_row
from tokens
where array_row is not null
order by array_row
"""

_LABELS = """
select token_labels.value, tokens.array_row
from token_labels
join tokens using (run_id, token_idx)
where token_labels.key = $key and tokens.array_row is not null
order by token_labels.value, tokens.array_row
"""


@dataclass(frozen=True)
class Tokens:
    """The tokens that the run's arrays have rows for.

    Attributes
    ----------
    rows
        (token,): their rows, ascending.
    documents
        (token,): the number of the document that each is of.
    numbers
        (token,): their ``token_idx``.
    """

    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Concept:
    """A label of tokens that is probed for.

    Attributes
    ----------
    key, value
        The label.
    is_yes
        (token,): whether the token has it.
    is_asked
        (token,): whether a probe is asked about it: its document has a token with a label of the
        key. Where nobody labelled, nothing is known.
    """

    key: str
    value: str
    is_yes: NDArray[np.bool_]
    is_asked: NDArray[np.bool_]

    @property
    def label(self) -> str:
        """The concept as it is asked for."""
        return f"{self.key}={self.value}"


def tokens_of(database: Database, run: str, cluster: str | None) -> Tokens:
    """Read which tokens the arrays of a run have rows for.

    Raises
    ------
    UsageError
        If there are none.
    """
    found = database.sql(_TOKENS).arrow()
    if not len(found):
        raise UsageError(f"the arrays of run {run} have no rows", f"moedb show {run}")
    examples = found["example_id"].to_numpy()
    documents = clusters_of(database, run, "probe", cluster).of(examples)
    rows, numbers = (found[name].to_numpy() for name in ("array_row", "token_idx"))
    return Tokens(rows.astype(np.int64), documents, numbers.astype(np.int64))


def concepts_of(
    database: Database, run: str, asked: tuple[str, ...], tokens: Tokens
) -> Iterator[Concept]:
    """Read the concepts that are asked for, in order and each once.

    Raises
    ------
    UsageError
        If the run has no such label of tokens.
    """
    known = [
        str(key)
        for (key,) in database.sql("select distinct key from token_labels order by key").fetchall()
    ]
    wanted: dict[str, set[str] | None] = {}
    for name in asked:
        pattern, equals, value = name.partition("=")
        keys = [key for key in known if fnmatchcase(key, pattern)]
        if not keys:
            raise _no_key(database, run, pattern, known)
        for key in keys:
            before = wanted.get(key, set())
            wanted[key] = None if before is None or not equals else {*before, value}
    for key, values in wanted.items():
        yield from _of_key(database, key, values, tokens)


def _no_key(database: Database, run: str, key: str, known: list[str]) -> UsageError:
    others = database.sql("select distinct key from example_labels").fetchall()
    if key in {found for (found,) in others}:
        said = f"{key!r} is a label of examples of run {run}; probes are for labels of tokens"
    else:
        said = f"no token of run {run} has a label with the key {key!r}"
    return UsageError(f"{said}; {did_you_mean(key, known)}", f"moedb label-tokens {run}")


def _of_key(
    database: Database, key: str, values: set[str] | None, tokens: Tokens
) -> Iterator[Concept]:
    labels = database.sql(_LABELS, {"key": key}).arrow()
    names = np.asarray(labels["value"].to_pylist(), dtype=object)
    places = np.searchsorted(tokens.rows, labels["array_row"].to_numpy())
    is_asked = np.isin(tokens.documents, np.unique(tokens.documents[places]))
    there = sorted(set(names.tolist()))
    for value in sorted(values or ()):
        if value not in there:
            raise UsageError(
                f"no token with a row in the arrays has {key}={value!r}; "
                f"{did_you_mean(value, there)}"
            )
    for value in there:
        if values is None or value in values:
            is_yes = np.zeros(len(tokens), np.bool_)
            is_yes[places[names == value]] = True
            yield Concept(key, value, is_yes, is_asked)
