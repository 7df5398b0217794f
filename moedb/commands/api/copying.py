"""Copying runs between stores from Python, as the command ``copy`` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moedb.store.copying.runs import Copied


def copy(
    source: str | Path,
    target: str | Path,
    *,
    runs: str | Sequence[str] = (),
    take_over: bool = False,
    dry_run: bool = False,
) -> "list[Copied]":
    """Copy runs from one store to another, each file against its hash.

    Readers of the target see a complete run when all of it is there. The same call again goes on
    where one was stopped, and brings what was added to a run since.

    Parameters
    ----------
    source, target
        Folders, or addresses such as ``s3://bucket/store``; the target is made if need be.
    runs
        One run or several; none for all that are sound.
    take_over
        Replace files of the target that no manifest names, which a stopped copy left.
    dry_run
        Only say what would be copied.

    Returns
    -------
    list
        For each run what became of it: ``run_id``; ``state``, which is ``copied``, ``same`` or
        ``ahead``; ``n_files`` and ``n_bytes``; ``is_complete``; and ``others``, the units that
        somebody else has written there.

    Raises
    ------
    StoreError
        If a store cannot be read or written, a file is not what was committed, or the target has
        another run of a name.
    UsageError
        If a run, or an address, is none.
    """
    from moedb.commands.api.progress import CopyProgress
    from moedb.store.copying.runs import copy_runs, source_of, target_of
    from moedb.store.reading.snapshot import warn_of_damage

    chosen = [runs] if isinstance(runs, str) else list(runs)
    found = source_of(source)
    warn_of_damage(found)
    with CopyProgress() as progress:
        return list(
            copy_runs(
                found,
                target_of(target),
                chosen,
                take_over=take_over,
                dry_run=dry_run,
                progress=progress,
            )
        )
