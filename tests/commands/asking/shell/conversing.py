"""Types into a program on a pseudo-terminal, and waits for what it shows."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAIN = "import sys; sys.argv[0] = 'moedb'; from moedb.cli import main; main()"
CTRL_C, CTRL_D, TAB, UP, ENTER = "\x03", "\x04", "\t", "\x1b[A", "\r"
_PATIENCE = 120
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


class Conversation:
    """A program that runs on a terminal."""

    def __init__(self, own: int, process: "subprocess.Popen[bytes]") -> None:
        self._own, self._process = own, process
        self.raw = b""
        self._read_to = 0

    def type(self, *texts: str) -> None:
        """Press keys, a pause between the texts, lest what ends one be part of the next."""
        for text in texts:
            os.write(self._own, text.encode())
            time.sleep(0.05)

    def expect(self, text: str) -> str:
        """Wait for a text that comes after what was waited for last; return all up to it."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            shown = self.shown[self._read_to :]
            if text in shown:
                end = shown.index(text) + len(text)
                self._read_to += end
                return shown[:end]
            if not self._read():
                break
        raise AssertionError(f"{text!r} is not in {self.shown[self._read_to :]!r}")

    def end(self) -> int:
        """Wait for the program's end; return its exit code."""
        until = time.monotonic() + _PATIENCE
        while self._read() and time.monotonic() < until:
            pass
        return self._process.wait(_PATIENCE)

    @property
    def shown(self) -> str:
        """All that came, without what moves the cursor and colours."""
        return _ESCAPES.sub(b"", self.raw).decode(errors="replace").replace("\r\n", "\n")

    def _read(self) -> bool:
        ready, _, _ = select.select([self._own], [], [], 0.1)
        if not ready:
            return self._process.poll() is None
        try:
            piece = os.read(self._own, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += piece
        return bool(piece)


@contextmanager
def talking_to(
    store: Path, state: Path, *arguments: str, code: str = MAIN
) -> Iterator[Conversation]:
    """Run moedb on a terminal of 80 columns and 24 lines; what it keeps goes to ``state``."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    settings = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    settings |= {
        "MOEDB_STORE": str(store),
        "XDG_STATE_HOME": str(state),
        "TERM": "xterm",
        "MOEDB_PAGER": "",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here answers where the cursor is
    }

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal

    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=other,
        stdout=other,
        stderr=other,
        env=settings,
        preexec_fn=take_terminal,
    )
    os.close(other)
    try:
        yield Conversation(own, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(own)
