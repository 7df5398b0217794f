"""The store as the server has it open: one snapshot, its databases, and what they answered."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moedb.commands.asking.exploring.desk import Desk
from moedb.commands.asking.exploring.workers import Workers, finished
from moedb.errors import MoedbError

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.store.reading.snapshot import Snapshot

_AT_ONCE = 2
"""Views that are made at once, and as many statements."""

_MOST_KEPT = 256 * 2**20
"""Bytes of answers that are kept."""

_LOOKED = 5.0
"""Seconds for which it is not looked again whether the store has changed."""


class MovedError(MoedbError):
    """The page is of an older snapshot than the one that is open."""


@dataclass
class Asked:
    """An answer that is made or was made, and how many wait for it."""

    n_waiting: int = 0
    _task: "asyncio.Task[bytes] | None" = None

    def begin(self, making: Coroutine[None, None, bytes]) -> None:
        """Have it made."""
        self._task = asyncio.ensure_future(making)
        # of what is stopped nobody asks how it ended
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def task(self) -> "asyncio.Task[bytes]":
        """What makes it."""
        if self._task is None:
            raise ValueError("nothing makes this answer yet")
        return self._task

    async def is_left(self) -> bool:
        """Whether nobody waits any more."""
        return self.n_waiting == 0

    @property
    def size(self) -> int | None:
        """Its bytes; None where there is none yet."""
        task = self.task
        if not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return len(task.result())


class OpenStore:
    """A snapshot of a store, its databases, and what they answered.

    Parameters
    ----------
    take
        Takes a snapshot of the store.
    snapshot
        The one to begin with.
    resampling
        How intervals are found; None for none.

    Attributes
    ----------
    snapshot
        What is read now.
    statements
        The databases for SQL that was typed: a slow view does not keep it waiting.
    """

    def __init__(
        self,
        take: "Callable[[], Snapshot]",
        snapshot: "Snapshot",
        resampling: "Resampling | None" = None,
    ) -> None:
        self._take = take
        self._resampling = resampling
        self._workers: list[Workers] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._newest, self._looked = "", 0.0
        self._looking = asyncio.Lock()
        self._open(snapshot)

    def _open(self, snapshot: "Snapshot") -> None:
        self.snapshot = snapshot
        self.version = snapshot.sha256
        self._views = Workers(snapshot, _AT_ONCE, self._resampling)
        self.statements = Workers(snapshot, _AT_ONCE, self._resampling)
        self._workers += [self._views, self.statements]
        self._answers: OrderedDict[Hashable, Asked] = OrderedDict()

    def expect(self, version: str | None) -> None:
        """Check that a page is of the snapshot that is open.

        Raises
        ------
        MovedError
            If it is of another one.
        """
        if version is not None and version != self.version:
            raise MovedError("the store was read again since this page was opened", "reload it")

    async def answer(
        self,
        key: Hashable,
        work: Callable[[Desk], bytes],
        is_gone: Callable[[], Awaitable[bool]] | None = None,
    ) -> bytes:
        """Return what ``work`` gives, or gave before; two who ask at once have one answer.

        Parameters
        ----------
        key
            What is asked for.
        work
            Makes it. It is stopped where all who asked for it have gone.
        is_gone
            Whether this one does not wait any more; asked again and again.

        Raises
        ------
        GoneError
            If it does not.
        """
        answers = self._answers
        asked = answers.get(key)
        if asked is None:
            asked = answers[key] = Asked()
            asked.begin(self._views.run(work, is_gone=asked.is_left))
        answers.move_to_end(key)
        asked.n_waiting += 1
        try:
            found = await finished(asked.task, is_gone=is_gone)
        except BaseException:
            asked.n_waiting -= 1
            # who asks from now on begins anew: this one ends, or has failed
            if answers.get(key) is asked and (asked.n_waiting == 0 or asked.task.done()):
                del answers[key]
            raise
        asked.n_waiting -= 1
        _keep_within(answers, _MOST_KEPT)
        return found

    async def has_changed(self) -> bool:
        """Whether the store has something else by now."""
        async with self._looking:
            if time.monotonic() - self._looked > _LOOKED:
                found = await asyncio.to_thread(self._take)
                self._newest, self._looked = found.sha256, time.monotonic()
        return self._newest != self.version

    async def read_again(self) -> None:
        """Take a new snapshot, and answer from it from now on."""
        async with self._looking:
            found = await asyncio.to_thread(self._take)
            if found.sha256 == self.version:
                return
            for workers in (self._views, self.statements):
                self._later(self._retired(workers))
            self._open(found)

    def stop(self) -> None:
        """Interrupt what runs."""
        for workers in self._workers:
            workers.stop()

    async def _retired(self, workers: Workers) -> None:
        await workers.retire()
        self._workers.remove(workers)

    def _later(self, what: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(what)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _keep_within(answers: "OrderedDict[Hashable, Asked]", most: int) -> None:
    """Leave out the answers that were not asked for the longest, where all are too much."""
    sizes = {key: size for key, asked in answers.items() if (size := asked.size) is not None}
    total = sum(sizes.values())
    for key, size in sizes.items():
        if total <= most:
            return
        del answers[key]
        total -= size
