"""Doing something to many files, some at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8
"""Files that are copied at a time."""

Item = TypeVar("Item")
Found = TypeVar("Found")


def each_in_threads(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Do something to each of many items; at the first error what is not begun is left."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
