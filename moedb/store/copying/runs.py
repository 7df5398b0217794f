"""Copying runs from store to store."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moedb.errors import StoreError, StoreVersionError, UsageError
from moedb.schemas.manifests import StoreManifest
from moedb.schemas.run_names import RunName
from moedb.store.copying.contents import Piece, RunContents, contents_of
from moedb.store.copying.local_target import LocalTarget
from moedb.store.copying.relation import compare
from moedb.store.copying.remote_target import RemoteTarget
from moedb.store.copying.target import RunTarget, Target, new_files
from moedb.store.layout import is_url
from moedb.store.reading.listing import read_store
from moedb.store.reading.places.remote_store import RemoteStore
from moedb.store.reading.snapshot import RunSnapshot, Snapshot, take_snapshot

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often it is looked again where somebody else changes the run meanwhile."""


class Progress(Protocol):
    """Hears how a copy goes on."""

    def begin(self, n_files: int, n_bytes: int) -> None:
        """A run is copied: so many files have to be brought."""
        ...

    def advance(self, n_bytes: int) -> None:
        """A file of so many bytes is there."""
        ...

    def note(self, text: str) -> None:
        """Something that its user should know."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, n_files: int, n_bytes: int) -> None:
        """Say nothing."""

    def advance(self, n_bytes: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Copied:
    """What became of a run.

    Attributes
    ----------
    run_id
        The run.
    state
        ``copied``, ``same`` or ``ahead``: whether something was done, or there was nothing to do.
    n_files, n_bytes
        Files of tables and arrays that were brought, or would be.
    is_complete
        Whether the source has all of it.
    others
        Units that somebody else committed there, or is writing.
    """

    run_id: str
    state: str
    n_files: int = 0
    n_bytes: int = 0
    is_complete: bool = True
    others: tuple[str, ...] = ()


def target_of(store: str | Path) -> Target:
    """The store that an address or a folder names, to copy to."""
    return RemoteTarget(str(store)) if is_url(store) else LocalTarget(Path(store))


def source_of(store: str | Path) -> Snapshot:
    """The runs of the store that an address or a folder names."""
    return take_snapshot(RemoteStore(str(store)) if is_url(store) else Path(store))


def copy_runs(
    source: Snapshot,
    target: Target,
    runs: Iterable[str] = (),
    *,
    take_over: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Iterator[Copied]:
    """Copy runs of a store; a run is done when its result is yielded.

    Parameters
    ----------
    source
        The store that they are in.
    target
        The one that they are copied to.
    runs
        The runs; none for all that are sound.
    take_over
        Replace files there that no manifest names, of a copy or a writer that was stopped.
    dry_run
        Only say what would be copied.
    progress
        Hears how it goes on.

    Raises
    ------
    StoreError
        If a store cannot be read or written, is of another format, or has another run of a name.
    """
    progress = progress or Silent()
    chosen = [source.run(run) for run in runs] or list(source.runs.values())
    form = read_store(source.store)
    found = target.format()
    if found is not None and found.major != form.major:
        raise StoreVersionError(
            f"the stores have different formats: {source.title} has {form.major}, "
            f"{target.title} has {found.major}",
            "moedb migrate OLD NEW writes a store of an older format anew",
        )
    if _is_same(source, target):
        raise UsageError(f"both stores are the same: {source.title}")
    taken = {} if found is None else target.names()
    for run in chosen:
        yield _copy_run(run, target, form, taken, take_over, dry_run, progress)


def _is_same(source: Snapshot, target: Target) -> bool:
    if source.remote is None and not is_url(target.title):
        return source.store.resolve() == Path(target.title).resolve()
    return source.title == target.title


def _copy_run(
    run: RunSnapshot,
    target: Target,
    form: StoreManifest,
    taken: dict[str, str],
    take_over: bool,
    dry_run: bool,
    progress: Progress,
) -> Copied:
    contents = contents_of(run)
    if dry_run:
        return _planned(contents, target)
    target.prepare(form)
    name = _name(run, taken, target.title, progress)
    with target.opened(run.run_id, take_over) as place:
        for _ in range(ATTEMPTS):
            done = _attempt(contents, place, target.title, name, progress)
            if done is not None:
                place.done()
                if name is not None and run.named.name is not None:
                    taken[run.run_id] = run.named.name
                return done
    raise StoreError(
        f"run {run.run_id} at {target.title} was changed again and again meanwhile",
        "the same command goes on with it; --take-over replaces what a stopped copy left",
    )


def _planned(contents: RunContents, target: Target) -> Copied:
    run = contents.run
    entries = list(contents.files.values())
    if target.format() is None:
        n_bytes = sum(entry.n_bytes for entry in entries)
        return Copied(run.run_id, "copied", len(entries), n_bytes, run.is_complete)
    place = target.place(run.run_id)
    there = place.there()
    state, others = "copied", tuple[str, ...]()
    if there is not None:
        found = compare(contents, there, target.title)
        state = "copied" if found.relation == "behind" else found.relation
        others = found.others
        entries = new_files(found.pieces, there)
    missing = place.missing(contents, entries)
    n_bytes = sum(entry.n_bytes for entry in missing)
    return Copied(run.run_id, state, len(missing), n_bytes, run.is_complete, others)


def _attempt(
    contents: RunContents, place: RunTarget, title: str, name: str | None, progress: Progress
) -> Copied | None:
    """Copy a run as it is there now; None where somebody else changed it meanwhile."""
    run, there = contents.run, place.there()
    if there is None and run.is_complete:
        missing = place.missing(contents, contents.files.values())
        n_bytes = sum(entry.n_bytes for entry in missing)
        entries = contents.files.values()
        progress.begin(len(entries), sum(entry.n_bytes for entry in entries))
        if not place.publish(contents, name, progress.advance):
            return None
        return Copied(run.run_id, "copied", len(missing), n_bytes)
    if there is None:
        place.begin(contents.configuration)
        there = place.there()
        if there is None:
            return None
    found = compare(contents, there, title)
    if found.relation != "behind":
        return Copied(run.run_id, found.relation, 0, 0, run.is_complete, found.others)
    return _join(contents, place, there, found.pieces, found.others, progress)


def _join(
    contents: RunContents,
    place: RunTarget,
    there: RunSnapshot,
    pieces: tuple[Piece, ...],
    others: tuple[str, ...],
    progress: Progress,
) -> Copied | None:
    """Bring what a run that readers see lacks."""
    run = contents.run
    files = new_files(pieces, there)
    missing = place.missing(contents, files)
    n_bytes = sum(entry.n_bytes for entry in missing)
    progress.begin(len(files), sum(entry.n_bytes for entry in files))
    passed = list(others)
    if there.head is None:
        for piece in pieces:
            if not _stands_for_several(piece) and not place.commit(
                contents, piece, progress.advance
            ):
                passed.append(piece.unit)
        if passed and run.is_complete:
            return None
        pieces = tuple(piece for piece in pieces if _stands_for_several(piece))
    if contents.head is not None and not place.finish(contents, pieces, there, progress.advance):
        return None
    for unit in passed:
        progress.note(
            f"unit {unit} of run {run.run_id} is there from another writer, or being written by "
            "one; it is left as it is"
        )
    return Copied(
        run.run_id, "copied", len(missing), n_bytes, run.is_complete, tuple(sorted(passed))
    )


def _stands_for_several(piece: Piece) -> bool:
    """Whether a manifest is one that a head alone makes count."""
    return "-" in piece.unit


def _name(run: RunSnapshot, taken: dict[str, str], title: str, progress: Progress) -> str | None:
    """What the run is called there: as here, where no other run is."""
    named = run.named
    if named.name is not None and any(
        name == named.name and other != run.run_id for other, name in taken.items()
    ):
        progress.note(
            f"run {run.run_id} is copied without its name {named.name!r}, which another run at "
            f"{title} has"
        )
        named = RunName(None, named.note)
    return None if named == RunName() else named.to_json()
