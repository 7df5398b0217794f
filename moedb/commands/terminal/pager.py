"""Text that is longer than the screen, a screen at a time, as psql and git show it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from moedb.commands.terminal.messages import say

_DEFAULT = "less -FRSX"
_LESS_OPTIONS = "FRSX"
_NO_PAGERS = ("", "cat")
_NO_TERMINALS = ("dumb", "emacs")


def find_pager(variables: Mapping[str, str] = os.environ) -> list[str] | None:
    """Return the pager and its arguments: of MOEDB_PAGER, else of PAGER, else less.

    Parameters
    ----------
    variables
        The environment. An empty pager, or ``cat``, is none.

    Returns
    -------
    list of str or None
        None where there is none, or the terminal cannot move its cursor.
    """
    if variables.get("TERM", "dumb") in _NO_TERMINALS:
        return None
    name = next((each for each in ("MOEDB_PAGER", "PAGER") if each in variables), None)
    command = _DEFAULT if name is None else variables[name].strip()
    if command in _NO_PAGERS:
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        words = [command]
    if shutil.which(words[0], path=variables.get("PATH")) is None:
        if name is not None:
            say(f"the pager {command!r} of {name} is not there; --no-pager does without one")
        return None
    return words


def page(pager: list[str], pieces: Iterable[str]) -> None:
    """Show text in a pager, until it is quit; what was not read then is no loss."""
    variables = {"LESS": _LESS_OPTIONS, **os.environ}
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        variables.setdefault("LESSCHARSET", "utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    process = subprocess.Popen(  # noqa: S603  what the user has set
        pager, stdin=subprocess.PIPE, env=variables
    )
    with _interrupts_left_to_the_pager():
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                for piece in pieces:
                    process.stdin.write(piece.encode("utf-8", "replace"))
            with suppress(BrokenPipeError):
                process.stdin.close()
        process.wait()


@contextmanager
def _interrupts_left_to_the_pager() -> Iterator[None]:
    """Have Ctrl-C reach the pager alone, in which it stops a search and no more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
