"""Finds patterns in texts, as a program of its own that can be stopped.

It is run by its path, without the package, and so imports the standard library alone. It reads
lines of JSON: a list of texts, or a pattern to find in the texts that it was given last. For a
pattern it answers the number of bytes and, as 64-bit integers, for each match four numbers: which
text, start and end in it, and which of the groups.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import sys
from array import array


def matches(pattern: re.Pattern[str], groups: list[str], texts: list[str]) -> array[int]:
    """All matches in some texts, the part that a group names, without empty ones."""
    found = array("q")
    numbers = [pattern.groupindex[name] for name in groups]
    for index, text in enumerate(texts):
        for match in pattern.finditer(text):
            if not numbers:
                start, end = match.span()
                if end > start:
                    found.extend((index, start, end, 0))
                continue
            for order, number in enumerate(numbers):
                start, end = match.span(number)
                if end > start:
                    found.extend((index, start, end, order))
    return found


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it says when it ends
    texts: list[str] = []
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "texts" in request:
            texts = request["texts"]
            continue
        if hasattr(signal, "alarm"):  # where whoever started it is gone
            signal.alarm(int(request["seconds"]) + 5)
        pattern = re.compile(request["pattern"], request["flags"])
        answer = matches(pattern, request["groups"], texts).tobytes()
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        sys.stdout.buffer.write(struct.pack("q", len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
