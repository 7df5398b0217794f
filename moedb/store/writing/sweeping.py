"""Deleting files that no manifest names any more: what was replaced, and what dead writers left.

What a newer head replaced stays for a while, for readers that opened the run before.
"""

from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import StoreDamagedError
from moedb.schemas.tables import TABLE_NAMES
from moedb.store.containment import check_file, check_folder, check_tree, plain_files
from moedb.store.layout import TABLE_FILE, TEMPORARY, RunLayout, is_segment
from moedb.store.reading.committed import head_numbers
from moedb.store.reading.listing import run_names, visible_names
from moedb.store.reading.snapshot import RunSnapshot, read_run


def is_kept(run: RunSnapshot) -> bool:
    """Whether what the run's newest head replaced must stay for now."""
    until = run.head.kept_until if run.head else None
    if until is None:
        return False
    try:
        return datetime.now(UTC) < datetime.fromisoformat(until)
    except (TypeError, ValueError) as error:
        raise StoreDamagedError(f"run {run.run_id}: kept_until: no time: {until!r}") from error


def sweep_run(run: RunSnapshot) -> int:
    """Delete the files of a run that nothing names. Its lock is held, and it holds no links.

    Returns
    -------
    int
        How many files were deleted; none while what was replaced is kept, or where a newer head
        may be broken.
    """
    if is_kept(run) or run.strays:
        return 0
    layout = run.layout
    named = {layout.folder / entry.path for entry in run.table_files()}
    doomed = [
        layout.tables / name / file
        for name in TABLE_NAMES
        for file in visible_names(layout.tables / name)
        if TABLE_FILE.fullmatch(file)
    ]
    # manifests are written under the lock
    for folder in (layout.segments, layout.heads):
        names = plain_files(folder)
        doomed += [folder / name for name in sorted(names) if TEMPORARY.fullmatch(name)]
    if run.head is not None:
        named.update(layout.folder / entry.path for entry in run.head.segments)
        doomed += [
            layout.segments / name for name in visible_names(layout.segments) if is_segment(name)
        ]
        # last: as long as there are several, somebody looks for what they name
        doomed += [layout.head(number) for number in _older_heads(run)]
    found = [path for path in doomed if path not in named]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def sweep_store(store: Path) -> int:
    """Delete what newer heads of the store's runs have replaced, where its time is over.

    Runs that are damaged, or being written, are passed over.

    Returns
    -------
    int
        How many files were deleted.
    """
    n_files = 0
    for run_id in run_names(store):
        layout = RunLayout(store, run_id)
        try:
            if len(_heads(layout)) < 2:
                continue
            check_tree(layout.folder)
            check_file(layout.lock)
            with FileLock(layout.lock, timeout=0):
                n_files += sweep_run(read_run(store, run_id))
        except (OSError, StoreDamagedError, Timeout):
            continue
    return n_files


def _heads(layout: RunLayout) -> list[int]:
    return head_numbers(visible_names(layout.heads)) if check_folder(layout.heads) else []


def _older_heads(run: RunSnapshot) -> list[int]:
    newest = run.head.number if run.head else 0
    return sorted(number for number in _heads(run.layout) if number < newest)
