"""The additions of a run: rows that were added to it after it was complete."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moedb.schemas.additions import Addition
from moedb.schemas.manifests import SegmentManifest
from moedb.store.reading.snapshot import RunSnapshot


@dataclass(frozen=True)
class StoredAddition:
    """An addition as a snapshot has it.

    Attributes
    ----------
    about
        Its name, kind, configuration, when it was begun, and the names of its parts.
    n_segments
        How many segments it is.
    committed_at
        When its last segment was committed, ISO 8601, UTC.
    n_rows
        For each table that it fills the rows.
    n_bytes
        Bytes of its files.
    """

    about: Addition
    n_segments: int
    committed_at: str
    n_rows: dict[str, int]
    n_bytes: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.about.name


def additions_of(run: RunSnapshot) -> dict[str, StoredAddition]:
    """The additions of a run by name, in the order in which they were begun."""
    found: dict[str, list[SegmentManifest]] = {}
    for segment in run.segments.values():
        if segment.addition is not None:
            found.setdefault(segment.addition.name, []).append(segment)
    stored = [_stored(segments) for segments in found.values()]
    stored.sort(key=lambda each: (each.about.added_at, each.name))
    return {each.name: each for each in stored}


def addition_of(segments: Iterable[SegmentManifest]) -> Addition | None:
    """What the segments of one addition say of it together; None where they are of none."""
    found = [segment.addition for segment in segments if segment.addition is not None]
    if not found:
        return None
    first = min(found, key=lambda each: (each.added_at, each.parts))
    parts = {part for each in found for part in each.parts}
    return replace(first, parts=tuple(sorted(parts)))


def without_addition(run: RunSnapshot, name: str) -> RunSnapshot:
    """The run as it is without one of its additions."""
    kept = {
        unit: segment
        for unit, segment in run.segments.items()
        if segment.addition is None or segment.addition.name != name
    }
    return replace(run, segments=kept)


def only_addition(run: RunSnapshot, name: str | None) -> RunSnapshot:
    """The run with the segments of one of its additions alone; for None with its own."""
    kept = {
        unit: segment
        for unit, segment in run.segments.items()
        if (segment.addition.name if segment.addition else None) == name
    }
    return replace(run, segments=kept)


def _stored(segments: list[SegmentManifest]) -> StoredAddition:
    about = addition_of(segments)
    if about is None:
        raise ValueError("segments of no addition")
    entries = [(name, e) for s in segments for name, files in s.tables.items() for e in files]
    names = dict.fromkeys(name for name, _ in entries)
    return StoredAddition(
        about,
        len(segments),
        max(segment.committed_at for segment in segments),
        {table: sum(e.n_rows for name, e in entries if name == table) for table in names},
        sum(entry.n_bytes for _, entry in entries),
    )
