"""Databases over one snapshot, a few, each used by one thread at a time."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from moedb.commands.asking.exploring.desk import Desk
from moedb.errors import MoedbError
from moedb.store.engine.execution import abandon, stopped_by

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.store.reading.snapshot import Snapshot

T = TypeVar("T")

_POLL = 0.05
_PATIENCE = 1.0
"""Seconds that what runs gets to end when the server does."""


class TooLongError(MoedbError):
    """It took longer than the server lets it."""


class GoneError(MoedbError):
    """Nobody waits for the answer any more."""


class Workers:
    """A few databases over a snapshot.

    A database defines its views and keeps counts as it is asked, which two threads must not do at
    once; so each request has one for itself, and waits where none is free.

    Parameters
    ----------
    snapshot
        What is read.
    n
        How many there are.
    resampling
        How intervals are found; None for none.
    """

    def __init__(self, snapshot: "Snapshot", n: int, resampling: "Resampling | None") -> None:
        self._desks = [Desk(snapshot, resampling) for _ in range(n)]
        self._free: asyncio.Queue[Desk] = asyncio.Queue()
        for desk in self._desks:
            self._free.put_nowait(desk)
        self._threads: dict[threading.Thread, threading.Event] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    async def run(
        self,
        work: Callable[[Desk], T],
        seconds: float | None = None,
        is_gone: Callable[[], Awaitable[bool]] | None = None,
    ) -> T:
        """Call ``work`` in a thread, with a database that no other one uses.

        Parameters
        ----------
        work
            What is done.
        seconds
            How long it may take, with the time that it waits; None for any.
        is_gone
            Whether nobody waits any more; asked again and again.

        Raises
        ------
        TooLongError
            If it takes longer; it is stopped.
        GoneError
            If nobody waits; it is stopped.
        """
        end = None if seconds is None else time.monotonic() + seconds
        waiting = asyncio.ensure_future(self._free.get())
        try:
            desk = await finished(waiting, end, is_gone)
        except BaseException:
            if not waiting.cancel():
                self._free.put_nowait(waiting.result())
            raise
        is_stopped = threading.Event()
        done: asyncio.Future[T] = self._in_thread(partial(work, desk), is_stopped)
        try:
            return await finished(done, end, is_gone)
        except (TooLongError, GoneError):
            is_stopped.set()
            stop = asyncio.ensure_future(_interrupted(desk, done))
            self._stopping.add(stop)
            stop.add_done_callback(self._stopping.discard)
            raise
        finally:
            done.add_done_callback(partial(self._give_back, desk))

    async def retire(self) -> None:
        """Close the databases, each once it is free."""
        for _ in self._desks:
            (await self._free.get()).database.close()

    def stop(self) -> None:
        """Stop what runs, and say of what does not end that nothing waits for it."""
        for is_stopped in [*self._threads.values()]:
            is_stopped.set()
        end = time.monotonic() + _PATIENCE
        while any(each.is_alive() for each in [*self._threads]) and time.monotonic() < end:
            for desk in self._desks:
                desk.database.interrupt()
            time.sleep(_POLL)
        for thread in [*self._threads]:
            if thread.is_alive():
                abandon(thread)

    def _give_back(self, desk: Desk, done: "asyncio.Future[T]") -> None:
        if not done.cancelled():
            done.exception()  # it was raised, or is of what was interrupted
        self._free.put_nowait(desk)

    def _in_thread(self, work: Callable[[], T], is_stopped: threading.Event) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def tell(method: Callable[..., None], value: object) -> None:
            if not done.done():
                method(value)

        def call() -> None:
            try:
                with stopped_by(is_stopped.is_set):
                    told = partial(tell, done.set_result, work())
            except BaseException as error:
                told = partial(tell, done.set_exception, error)
            self._threads.pop(thread, None)
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(told)

        thread = threading.Thread(target=call, name="moedb-explore", daemon=True)
        self._threads[thread] = is_stopped
        thread.start()
        return done


async def finished(
    future: "asyncio.Future[T]",
    end: float | None = None,
    is_gone: Callable[[], Awaitable[bool]] | None = None,
) -> T:
    """Wait for what comes, without ending it.

    Raises
    ------
    TooLongError
        If it has not come by ``end``, as ``time.monotonic`` tells it.
    GoneError
        If nobody waits any more.
    """
    while not (await asyncio.wait({future}, timeout=_POLL))[0]:
        if end is not None and time.monotonic() > end:
            raise TooLongError("it took longer than it may")
        if is_gone is not None and await is_gone():
            raise GoneError("nobody waits for it")
    return future.result()


async def _interrupted(desk: Desk, done: "asyncio.Future[T]") -> None:
    # again and again: it may not have begun when the first one comes
    while not (await asyncio.wait({done}, timeout=_POLL))[0]:
        desk.database.interrupt()
