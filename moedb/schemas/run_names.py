"""What people call a run: a name and a note, which may be given and changed at any time."""

import re
from dataclasses import dataclass

from moedb.errors import StoreDamagedError, UsageError
from moedb.schemas.manifests import Manifest

NAME_LENGTH = 64
NOTE_LENGTH = 2000
"""Characters at most."""

_NAME = re.compile(rf"\w[\w.+-]{{0,{NAME_LENGTH - 1}}}")


@dataclass(frozen=True)
class RunName(Manifest):
    """``name.json`` of a run: its labels ``name`` and ``note``, which change nothing of a result.

    Attributes
    ----------
    name
        Another name for the run, wherever a run is asked for; None without one.
    note
        What it is, in the words of who made it; None without one.
    """

    name: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
            check_note(self.note)
        except UsageError as error:
            raise StoreDamagedError(error.message) from error

    @property
    def labels(self) -> dict[str, str]:
        """Those that are given, as labels of the run."""
        given = {"name": self.name, "note": self.note}
        return {key: value for key, value in given.items() if value is not None}


def title_of(run_id: str, name: str | None) -> str:
    """What a message calls a run: the name given to it, if any, and what it is stored as."""
    return run_id if name is None else f"{name} ({run_id})"


def check_name(name: object) -> None:
    """Check that a text can be a run's name; None can.

    Raises
    ------
    UsageError
        If it can't.
    """
    if name is None or (isinstance(name, str) and _NAME.fullmatch(name)):
        return
    raise UsageError(
        f"a run cannot be called {name!r}: a name is of letters, digits and . _ + -, "
        f"{NAME_LENGTH} at most, and begins with a letter or a digit"
    )


def check_note(note: object) -> None:
    """Check that a text can be a run's note; None can.

    Raises
    ------
    UsageError
        If it can't.
    """
    if note is None or (isinstance(note, str) and _is_text(note) and len(note) <= NOTE_LENGTH):
        return
    raise UsageError(
        f"a note is a text of up to {NOTE_LENGTH:,} characters, none of them null: got {note!r:.80}"
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text and text.strip() != ""
