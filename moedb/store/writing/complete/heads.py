"""The next head of a complete run: the commit of every change that is made to it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from moedb.errors import StoreError
from moedb.schemas.manifests import FileEntry, HeadManifest
from moedb.store.files import create_exclusively
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import RunSnapshot
from moedb.store.writing.open_run import timestamp

KEPT_FOR = timedelta(hours=1)
"""How long replaced files stay."""


def head_of_sound_run(run: RunSnapshot, what: str) -> HeadManifest:
    """Return the head of a run that may get a next one.

    Parameters
    ----------
    run
        The run, as it is now.
    what
        What is done to it, for a message: ``only complete runs are WHAT``.

    Raises
    ------
    StoreError
        If the run is incomplete, or a newer head of it may be broken.
    """
    if run.head is None:
        raise StoreError(
            f"run {run.run_id} is incomplete; only complete runs are {what}",
            "finish it first: the command that began it goes on with it",
        )
    if run.strays:
        raise StoreError(
            f"{run.strays[0]} is no manifest of the run {run.run_id}, or a broken one",
            "remove that file, or the run",
        )
    return run.head


def write_next_head(
    layout: RunLayout, head: HeadManifest, segments: Iterable[FileEntry], kept_until: str
) -> bool:
    """Write the head that comes after ``head``, if nobody has; the run's lock is held.

    Parameters
    ----------
    layout, head
        The run, and its newest head.
    segments
        The manifests that the run consists of from now on.
    kept_until
        Until when what only older heads name stays.

    Returns
    -------
    bool
        False where another head came first.
    """
    number = head.number + 1
    successor = HeadManifest(
        run_id=head.run_id,
        path=layout.relative(layout.head(number)),
        number=number,
        written_at=timestamp(),
        finished_at=head.finished_at,
        run_sha256=head.run_sha256,
        metadata=head.metadata,
        segments=tuple(segments),
        kept_until=kept_until,
    )
    return create_exclusively(layout.head(number), successor.to_json())


def kept_from_now(kept_for: timedelta, head: HeadManifest | None = None) -> str:
    """Until when replaced files stay: so long, and no shorter than ``head`` has promised."""
    until = (datetime.now(UTC) + kept_for).isoformat(timespec="microseconds")
    return max(until, (head.kept_until if head else None) or until)
