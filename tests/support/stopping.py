"""Processes that stop themselves at a certain point.

One that is stopped from outside may be done before the signal comes, on a busy machine.
"""

import signal
from pathlib import Path

_CODE = """
import os, signal, threading, time

# a process started in a shell's background is born deaf to it
signal.signal(signal.SIGINT, signal.default_int_handler)

def stop():
    while not os.path.exists({path!r}):
        time.sleep(0.001)
    time.sleep({after})
    os.kill(os.getpid(), {how})

threading.Thread(target=stop, daemon=True).start()
"""


def stopping_at(path: Path, how: signal.Signals, after: float = 0.0) -> str:
    """Python code that has its process stop when a file appears, or ``after`` seconds later."""
    return _CODE.format(path=str(path), after=after, how=int(how))
