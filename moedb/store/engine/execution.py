"""Running DuckDB so that Ctrl-C stops it, and stopping what Python does between statements."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

_POLL = 0.05
_PATIENCE = 0.7
"""Seconds that an interrupted query gets to end."""

_IS_STOPPED: ContextVar[Callable[[], bool] | None] = ContextVar("moedb_is_stopped", default=None)


class StoppedError(BaseException):
    """Nobody waits for what is computed any more.

    Like KeyboardInterrupt it is no Exception: what makes the best of errors must not go on.
    """


@contextmanager
def stopped_by(is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Have what runs within the block stop at its next step once ``is_stopped`` says so."""
    token = _IS_STOPPED.set(is_stopped)
    try:
        yield
    finally:
        _IS_STOPPED.reset(token)


def stop_if_asked() -> None:
    """Stop here where nobody waits any more; called between the steps of what takes long.

    Raises
    ------
    StoppedError
        If so.
    """
    is_stopped = _IS_STOPPED.get()
    if is_stopped is not None and is_stopped():
        raise StoppedError


# Those that did not end; they keep the process from ending in the ordinary way.
_abandoned: list[threading.Thread] = []


def run_interruptibly(connection: "duckdb.DuckDBPyConnection", work: Callable[[], T]) -> T:
    """Call ``work``, which runs something on ``connection``; Ctrl-C interrupts it.

    DuckDB holds the thread that calls it until it is done: Python hears of a signal only after
    that. So on the main thread, where signals arrive, another one does the work.

    Parameters
    ----------
    connection
        What is interrupted.
    work
        Runs a query, or fetches its rows.

    Raises
    ------
    KeyboardInterrupt
        If the user stopped it. The connection can be used again.
    StoppedError
        If nobody waits for it.
    """
    stop_if_asked()
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=call, name="moedb-query", daemon=True)
    try:
        thread.start()
        while not done.wait(_POLL):
            pass
    except BaseException:
        _interrupt(connection, thread, done)
        raise
    if errors:
        raise errors[0]
    return results[0]


def abandon(thread: threading.Thread) -> None:
    """Say of a thread that is interrupted, and may not end, that the process need not wait."""
    _abandoned.append(thread)


def is_anything_running() -> bool:
    """Whether an interrupted query did not end, so that the process can only be ended at once."""
    return any(thread.is_alive() for thread in _abandoned)


def _interrupt(
    connection: "duckdb.DuckDBPyConnection", thread: threading.Thread, done: threading.Event
) -> None:
    if thread.ident is None:
        return
    _abandoned.append(thread)
    deadline = time.monotonic() + _PATIENCE
    # again and again: it may not have begun when the first one comes
    while not done.wait(_POLL / 2) and time.monotonic() < deadline:
        connection.interrupt()
    if done.is_set():
        _abandoned.remove(thread)
