"""Mirrors of what is run from Python: another store to which units are copied as they commit."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moedb.schemas.manifests import RunManifest

logger = logging.getLogger(__name__)


def check_mirror(mirror: str | Path | None) -> None:
    """Check that a mirror can be one, before anything expensive.

    Raises
    ------
    UsageError
        If it is no address of a store, or what reaches it is not installed.
    """
    if mirror is not None:
        from moedb.store.copying.runs import target_of

        target_of(mirror)


@contextmanager
def mirrored(
    store: Path, run_id: str, mirror: str | Path | None
) -> "Iterator[Callable[[RunManifest], None] | None]":
    """Copy a run's units while they are committed; what keeps them from it is logged at the end.

    Yields
    ------
    Callable or None
        What agrees with other machines on the run before it is begun; None without a mirror.
    """
    if mirror is None:
        yield None
        return
    from moedb.store.copying.mirror import Mirror

    with Mirror(store, run_id, mirror) as copying:
        yield copying.claim
    if copying.problem is not None:
        logger.warning(
            "not mirrored, or not all of it: %s; to finish it: %s",
            copying.problem.message,
            copying.command,
        )
    elif copying.copied is not None and copying.copied.others:
        others = ", ".join(copying.copied.others[:5])
        logger.warning("the mirror has these units from another writer: %s", others)
