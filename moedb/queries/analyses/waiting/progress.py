"""How far a long analysis is, for whoever wants to show it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from moedb.store.engine.execution import stop_if_asked

T = TypeVar("T")

Advance = Callable[[], None]
Show = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows that so many parts of something are to come; what it yields is called after each."""

_SHOWN: ContextVar[Show | None] = ContextVar("moedb_progress", default=None)


def each_part(parts: Sequence[T], what: str) -> Iterator[T]:
    """Go through the parts of an analysis, showing how far it is.

    Parameters
    ----------
    parts
        The parts.
    what
        What they are, in the plural.
    """
    show = _SHOWN.get()
    if show is None:
        yield from _stoppable(parts)
        return
    with show(what, len(parts)) as advance:
        # of what has parts in its turn, the outermost alone is shown
        _SHOWN.set(None)
        try:
            for part in _stoppable(parts):
                yield part
                advance()
        finally:
            _SHOWN.set(show)


def _stoppable(parts: Sequence[T]) -> Iterator[T]:
    for part in parts:
        stop_if_asked()
        yield part


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Have progress shown by ``show`` within the block."""
    token = _SHOWN.set(show)
    try:
        yield
    finally:
        _SHOWN.reset(token)
