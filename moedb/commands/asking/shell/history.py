"""Where the shell keeps what was typed: a file that its user alone reads."""

import os
from collections.abc import Mapping
from pathlib import Path

from moedb.commands.terminal.messages import say


def history_path(variables: Mapping[str, str] = os.environ) -> Path:
    """The file: ``moedb/history`` in ``XDG_STATE_HOME``, or in ``~/.local/state``."""
    root = variables.get("XDG_STATE_HOME")
    state = Path(root) if root else Path.home() / ".local" / "state"
    return state / "moedb" / "history"


def private_history(path: Path) -> Path | None:
    """Make the file where it is not there, and see to it that nobody else can read it.

    Returns
    -------
    Path or None
        The file; None where it cannot be written to, which is said.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        say(f"what is typed is not kept: {path}: {error.strerror}")
        return None
    return path
