"""What a destination has of a run, held against what is to be copied there."""

from dataclasses import dataclass
from typing import Literal

from moedb.errors import StoreDamagedError, StoreError
from moedb.schemas.additions import Addition
from moedb.schemas.manifests import HeadManifest
from moedb.schemas.tables import TABLE_NAMES
from moedb.store.containment import read_text
from moedb.store.copying.contents import Piece, RunContents
from moedb.store.reading.additions import additions_of, only_addition
from moedb.store.reading.snapshot import RunSnapshot

Relation = Literal["same", "ahead", "behind"]


@dataclass(frozen=True)
class Difference:
    """What has to be done to a run at a destination.

    Attributes
    ----------
    relation
        Whether it is the same there, has more there, or less.
    pieces
        What is to be committed there.
    others
        Units that somebody else committed there, with other files; they are left as they are.
    """

    relation: Relation
    pieces: tuple[Piece, ...] = ()
    others: tuple[str, ...] = ()


def compare(contents: RunContents, there: RunSnapshot, title: str) -> Difference:
    """Hold a run against what a store has of it.

    Parameters
    ----------
    contents, there
        The run, and what the store has of it.
    title
        What the store is called.

    Raises
    ------
    StoreError
        If it is another run, or both were changed apart.
    """
    run = contents.run
    if text_at(there, "run.json") != contents.configuration:
        raise StoreError(
            f"{title} has another run {run.run_id}: it was begun apart from this one",
            f"copy to another store, or delete the run there: moedb rm {run.run_id}",
        )
    if there.head is not None:
        return _against_head(contents, there, there.head, title)
    missing, others = [], []
    for piece in contents.pieces:
        text = text_at(there, piece.path)
        if text is None:
            missing.append(piece)
        elif text != piece.text:
            others.append(piece.unit)
    if others and run.is_complete:
        raise StoreError(
            f"{title} has units of run {run.run_id} that were captured apart from this one: "
            f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}",
            f"finish the run that is there, or delete it: moedb rm {run.run_id}",
        )
    if there.is_complete or not (missing or contents.head):
        more = set(there.segments) - set(run.segments)
        return Difference("ahead" if more else "same", (), tuple(others))
    return Difference("behind", tuple(missing), tuple(others))


def _against_head(
    contents: RunContents, there: RunSnapshot, head: HeadManifest, title: str
) -> Difference:
    run = contents.run
    if run.head is None:
        return Difference("ahead")
    if text_at(there, head.path) == contents.head:
        return Difference("same")
    if run.head.number > head.number and _came_of(run, there, head):
        kept = {entry.path for entry in head.segments}
        return Difference("behind", tuple(p for p in contents.pieces if p.path not in kept))
    if run.head.number < head.number and _came_of(there, run, run.head):
        return Difference("ahead")
    raise StoreError(
        f"run {run.run_id} was changed here and at {title}, each apart from the other",
        "copy to another store, or delete one of both",
    )


def _came_of(newer: RunSnapshot, older: RunSnapshot, head: HeadManifest) -> bool:
    """Whether a run was what another one is, before it was changed.

    It still has the other's head, or all that the other one consists of; or what was put together
    since: as many rows of its own, the same arrays, and each addition with all of its parts.
    """
    if text_at(newer, head.path) == text_at(older, head.path):
        return True
    if newer.head is not None and set(head.segments) <= set(newer.head.segments):
        return True
    own = [only_addition(run, None) for run in (newer, older)]
    if set(own[0].shards()) != set(own[1].shards()):
        return False
    if any(own[0].n_rows(name) != own[1].n_rows(name) for name in TABLE_NAMES):
        return False
    added = additions_of(newer)
    return all(
        name in added and _has_all_of(added[name].about, each.about)
        for name, each in additions_of(older).items()
    )


def _has_all_of(newer: Addition, older: Addition) -> bool:
    same = (newer.kind, newer.config, newer.added_at) == (older.kind, older.config, older.added_at)
    return same and set(older.parts) <= set(newer.parts)


def text_at(run: RunSnapshot, path: str) -> str | None:
    """A manifest of a run, as its store had it when it was read; None without it."""
    try:
        return read_text(run.layout.folder / path)
    except (OSError, StoreDamagedError):
        return None
