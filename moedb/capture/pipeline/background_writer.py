"""A thread of its own for writing: the model does not wait for the disk, up to a bounded queue."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

QUEUED_UNITS = 2
"""Units that wait to be written, at most; then the model waits."""


class UnitWriter:
    """Runs commits in the background. A failure is raised at the next call, and at the end.

    Leaving the context waits for what is queued, unless an error is on its way: then what is
    queued is dropped, and only the unit being written is finished.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(QUEUED_UNITS)
        self._failure: BaseException | None = None
        self._dropping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="moedb-writer", daemon=True)

    def submit(self, commit: Callable[[], object]) -> None:
        """Queue a commit; wait where enough are queued already."""
        self._raise_failure()
        while True:
            try:
                self._queue.put(commit, timeout=0.2)
                return
            except queue.Full:
                self._raise_failure()

    def _work(self) -> None:
        while (commit := self._queue.get()) is not None:
            if self._dropping.is_set():
                continue
            try:
                commit()
            except BaseException as error:
                self._failure = error
                self._dropping.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._dropping.set()
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise_failure()
