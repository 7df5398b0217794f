"""Runs the program on a pseudo-terminal."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MAIN = "import sys; sys.argv[0] = 'moedb'; from moedb.cli import main; main()"
_PATIENCE = 120


@dataclass(frozen=True)
class Shown:
    """What was on the terminal, what went to stderr, and the exit code."""

    out: str
    err: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def on_terminal(
    store: Path,
    *arguments: str,
    columns: int = 80,
    lines: int = 24,
    keys: str = "",
    after: str = "",
    variables: Mapping[str, str] | None = None,
    err_too: bool = False,
) -> Shown:
    """Run moedb with stdin and stdout on a terminal; ``keys`` are typed once ``after`` is seen.

    stderr is a pipe, unless it is on the terminal too.
    """
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    settings = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "LESS")}
    settings |= {"MOEDB_STORE": str(store), "TERM": "xterm", "MOEDB_PAGER": "", **(variables or {})}
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, *arguments],
        stdin=other,
        stdout=other,
        stderr=other if err_too else subprocess.PIPE,
        env=settings,
        start_new_session=True,
    )
    os.close(other)
    seen = b""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        ready, _, _ = select.select([own], [], [], 0.1)
        try:
            piece = os.read(own, 65536) if ready else b""
        except OSError:  # the other end is closed
            break
        seen += piece
        if keys and after.encode() in seen:
            os.write(own, keys.encode())
            keys = ""
    _, err = process.communicate(timeout=_PATIENCE)
    os.close(own)
    return Shown(seen.decode().replace("\r\n", "\n"), (err or b"").decode(), process.returncode)
