"""Processes that stop themselves at a certain point.

One that is stopped from outside may be done before the signal comes, on a busy machine.
"""

import signal
from collections.abc import Sequence
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


_KILLED = """
import os, shutil, signal, sys
from pathlib import Path

{imports}

whole, copies, run = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def killed_at(n):
    calls = 0

    def wrap(function):
        def wrapped(*given, **named):
            nonlocal calls
            calls += 1
            if calls == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)

        return wrapped

    for name in {calls!r}:
        setattr(os, name, wrap(getattr(os, name)))

n = 1
while True:
    store = copies / str(n)
    shutil.copytree(whole, store)
    child = os.fork()
    if child == 0:
        killed_at(n)
        {work}
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    n += 1
print(n)
"""


def killed_at_each_call(imports: str, work: str, calls: Sequence[str]) -> str:
    """Python code that does something to copies of a store, killed at the n-th call to the disk.

    The program takes a store, a folder for the copies and a run, and prints how many copies there
    are; in the last of them, which is named by that number, nothing was killed.

    Parameters
    ----------
    imports
        Lines that import what ``work`` needs.
    work
        A line with the names ``store`` and ``run``.
    calls
        The functions of ``os`` that are counted.
    """
    return _KILLED.format(imports=imports, work=work, calls=tuple(calls))
