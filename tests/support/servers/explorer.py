"""A server of `moedb explore` in a process of its own, and what asks it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

_MAIN = """
import signal, sys
# a process that is started in the background may be born deaf to it
signal.signal(signal.SIGINT, signal.default_int_handler)
from moedb.cli import main
main()
"""
_PATIENCE = 120.0


@dataclass(frozen=True)
class Explorer:
    """A server that runs.

    Attributes
    ----------
    address
        What it printed: it opens the page.
    process
        Its process.
    """

    address: str
    process: "subprocess.Popen[str]"

    @property
    def root(self) -> str:
        """Its address without the token."""
        return self.address.partition("/?")[0]

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.address).port or 0

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client that was given the address."""
        with httpx.Client(base_url=self.root, timeout=_PATIENCE, trust_env=False) as client:
            assert client.get(self.address).status_code == 303
            yield client

    def cookie(self) -> str:
        """The header that a browser sends once it was given the address."""
        with self.client() as client:
            return "; ".join(f"{name}={value}" for name, value in client.cookies.items())

    def sent(self, text: str | bytes) -> str:
        """Send bytes as they are, and return the answer."""
        raw = text if isinstance(text, bytes) else text.encode("latin-1")
        with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as connection:
            connection.sendall(raw)
            found = b""
            while part := connection.recv(65536):
                found += part
        return found.decode("latin-1")

    def end(self) -> tuple[int, str]:
        """Interrupt it as Ctrl-C does; return its exit code, and what it said."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=_PATIENCE)
        return self.process.returncode, err


@contextmanager
def explorer(store: Path | str, *arguments: str) -> Iterator[Explorer]:
    """Run a server over a store, in a folder or at an address."""
    command = [sys.executable, "-c", _MAIN, "explore", "--store", str(store), *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MOEDB_CACHE": ""},
    )
    assert process.stdout is not None
    try:
        yield Explorer(process.stdout.readline().strip(), process)
    finally:
        process.kill()
        process.communicate()
