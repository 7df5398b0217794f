"""The exceptions of moedb, in one tree.

Every error that a user can cause or meet is a :class:`MoedbError`; its ``exit_code`` is what the
command line returns. A message says what is wrong, which value, what would be valid, and (``hint``)
what to type next.
"""

import difflib
from collections.abc import Iterable, Sequence


class MoedbError(Exception):
    """Base of every error that moedb raises on purpose.

    Parameters
    ----------
    message
        What is wrong, with the value.
    hint
        What to do next, typically a command to type.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UsageError(MoedbError):
    """The request itself is wrong: an unknown name, a value out of range, a missing parameter."""

    exit_code = 2


class DatasetError(UsageError):
    """A dataset, or a file of prompts, is not what the job needs."""


class DatasetUnreachableError(DatasetError):
    """A dataset could not be read, or not to its end, because the network or the hub failed."""

    exit_code = 1


class ModelError(MoedbError):
    """A model cannot be loaded, or is not a Mixture of Experts that moedb can capture."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no model at the given folder or hub id."""


class CaptureError(MoedbError):
    """A capture stopped: a batch failed its checks, or writing failed."""


class CheckError(CaptureError):
    """What was captured contradicts the model's own arithmetic."""


class StoreError(MoedbError):
    """The store is missing, damaged or newer than this moedb."""

    exit_code = 3


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the given path."""


class StoreVersionError(StoreError):
    """The store is of a version of the format that cannot be read, or not be written."""


class StoreDamagedError(StoreError):
    """A committed file is missing, cut short, or not what its checksum says."""


class FaultsError(StoreDamagedError):
    """All that is wrong with a run.

    Parameters
    ----------
    faults
        At least one; the message has a line for each.
    """

    def __init__(self, faults: Sequence[StoreDamagedError]) -> None:
        super().__init__("\n".join(fault.message for fault in faults), faults[0].hint)
        self.faults = tuple(faults)


class RunNotFoundError(UsageError, LookupError):
    """The store holds no such run."""


class QueryNotFoundError(UsageError, LookupError):
    """There is no named query of this name."""


class ParameterError(UsageError):
    """A query parameter is missing, unknown, or of the wrong type."""


class SqlRefusedError(UsageError):
    """The SQL would write, or reach outside the store."""


class SqlError(UsageError):
    """DuckDB could not run the SQL; the message is DuckDB's own."""


class ArrayNotFoundError(UsageError, LookupError):
    """The run holds no such array."""


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Return the valid names as a hint, the one nearest to ``given`` first.

    Examples
    --------
    >>> did_you_mean("overlpa", ["overlap", "co-activation"])
    'did you mean overlap? valid: co-activation, overlap'
    """
    names = sorted(valid)
    if not names:
        return "there are none yet"
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    listed = "valid: " + ", ".join(names)
    return f"did you mean {nearest[0]}? {listed}" if nearest else listed


def nearest_names(given: str, valid: Iterable[str], n: int = 3) -> str:
    """Return the valid names that are spelled like ``given`` as a question; empty without any.

    For names that are too many to list them all in an error.

    Examples
    --------
    >>> nearest_names("overlpa", ["overlap", "output-overlap", "concentration"])
    'did you mean overlap or output-overlap?'
    >>> nearest_names("nonsense", ["overlap", "concentration"])
    ''
    """
    near = difflib.get_close_matches(given, sorted(valid), n=n, cutoff=0.5)
    if not near:
        return ""
    *first, last = near
    return f"did you mean {', '.join(first)} or {last}?" if first else f"did you mean {last}?"


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, for a message of ours; else its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
