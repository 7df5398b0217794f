"""Patterns of a stranger, found in texts within a time."""

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moedb.errors import MoedbError, UsageError
from moedb.experts.concepts.rule_file import Rule

_PROGRAM = Path(__file__).with_name("matcher.py")


class Matcher:
    """Finds the matches of patterns, in a process of its own.

    Python's regular expressions may take for ever, and nothing but the end of their process stops
    them.

    Parameters
    ----------
    seconds
        How long one pattern may take for the texts that are given at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(  # noqa: S603
            # without the user's folders, and without looking for packages
            [sys.executable, "-I", "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def give(self, texts: Sequence[str]) -> None:
        """Take the texts in which patterns are found from now on."""
        self._send({"texts": list(texts)})

    def find(self, rule: Rule) -> NDArray[np.int64]:
        """Find a rule's pattern.

        Returns
        -------
        numpy.ndarray
            (match, 4): the text, start and end in it, and the number of the rule's value.

        Raises
        ------
        UsageError
            If it takes too long.
        """
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            self._process.kill()

        timer = threading.Timer(self._seconds, stop)
        timer.start()
        try:
            self._send(
                {
                    "pattern": rule.pattern,
                    "flags": rule.flags,
                    "groups": list(rule.groups),
                    "seconds": self._seconds,
                }
            )
            (size,) = struct.unpack("q", self._receive(8))
            return np.frombuffer(self._receive(size), np.int64).reshape(-1, 4)
        except (OSError, struct.error) as error:
            if stopped.is_set():
                raise UsageError(
                    f"rule {rule.key!r}: its pattern took more than {self._seconds:g} s for a "
                    "piece of the texts",
                    "rewrite it without nested repetitions such as (a+)+, or allow more: "
                    "--time-limit SECONDS",
                ) from error
            raise MoedbError(
                f"rule {rule.key!r}: the process that finds its pattern ended"
            ) from error
        finally:
            timer.cancel()

    def _send(self, request: object) -> None:
        if self._process.stdin is None:
            raise OSError("no input")
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, size: int) -> bytes:
        if self._process.stdout is None:
            raise OSError("no output")
        found = self._process.stdout.read(size)
        if len(found) < size:
            raise OSError("the process ended")
        return found
