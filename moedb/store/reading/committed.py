"""What is committed of a run, by its manifests: each is held against the others.

In format 1 the manifests in ``segments/`` count. In format 2 they do so while the run is
incomplete; of a complete one those that its newest head names, by their hashes.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import (
    SEALED_SINCE,
    FileEntry,
    HeadManifest,
    RunManifest,
    SegmentManifest,
)
from moedb.store.containment import check_folder, read_text
from moedb.store.files import sha256_of_text
from moedb.store.layout import (
    FINAL_UNIT,
    FIRST_UNIT,
    HEAD,
    SEGMENT,
    RunLayout,
    is_segment,
    unit_name,
)
from moedb.store.reading.listing import visible_names

logger = logging.getLogger(__name__)


class Committed(NamedTuple):
    """The manifests of a run.

    Attributes
    ----------
    manifest
        Its configuration.
    segments
        For each committed unit its manifest.
    head
        What makes it complete; None where nothing does, and in format 1.
    strays
        Files among the manifests that are none of the run's: copies, or heads that are broken.
    """

    manifest: RunManifest
    segments: dict[str, SegmentManifest]
    head: HeadManifest | None
    strays: tuple[Path, ...]


def read_committed(
    layout: RunLayout, major: int, faults: list[StoreDamagedError] | None = None
) -> Committed:
    """Read the manifests of a run of a store of the format ``major``.

    Parameters
    ----------
    layout, major
        The run, and the format.
    faults
        Where given, takes what is wrong with units' manifests, and these are passed over.

    Raises
    ------
    StoreDamagedError
        If one is missing, malformed, changed, or another's, or anything that is read is a link.
    """
    check_folder(layout.folder)
    text = _read(layout.manifest)
    manifest = RunManifest.from_json(text, str(layout.manifest), major)
    if manifest.run_id != layout.run_id:
        raise StoreDamagedError(f"{layout.manifest}: is of the run {manifest.run_id!r}")
    if major < SEALED_SINCE:
        return _first_format(layout, manifest, faults)
    run_sha256 = sha256_of_text(text)
    head, broken = newest_head(layout)
    names, strays = _segment_names(layout)
    if head is None:
        planned = {FIRST_UNIT, FINAL_UNIT, *map(unit_name, range(len(manifest.units)))}
        units = [name.removesuffix(".json") for name in names if SEGMENT.fullmatch(name)]
        strays += [layout.segment(unit) for unit in units if unit not in planned]
        named = dict.fromkeys((unit for unit in units if unit in planned), "")
    else:
        if head.run_sha256 != run_sha256:
            raise StoreDamagedError(f"{layout.manifest} is not the one of the completed run")
        named = dict(_listed(layout, entry) for entry in head.segments)
    segments = _each(
        (partial(_segment, layout, unit, run_sha256, named[unit]) for unit in named), faults
    )
    for path in strays:
        name = layout.shown(path)
        logger.warning("ignored, as it is no manifest of the run %s: %s", layout.run_id, name)
    return Committed(manifest, segments, head, (*strays, *broken))


def newest_head(layout: RunLayout) -> tuple[HeadManifest | None, tuple[Path, ...]]:
    """Read the newest head of a run that is whole.

    Returns
    -------
    tuple
        The head, None where the run has none; and the files beside it that are none.

    Raises
    ------
    StoreDamagedError
        If there are heads and none is whole.
    """
    names = visible_names(layout.heads) if check_folder(layout.heads) else []
    strays = [layout.heads / name for name in names if not HEAD.fullmatch(name)]
    errors = []
    for number in head_numbers(names):
        path = layout.head(number)
        try:
            head = HeadManifest.from_json(_read(path), str(path))
            _expect_place(layout, str(path), head.run_id, head.path)
        except StoreDamagedError as error:
            errors.append(error)
            strays.append(path)
            continue
        for broken in errors:
            what = layout.shown(broken.message)
            logger.warning("run %s: an older head counts: %s", layout.run_id, what)
        return head, tuple(strays)
    if errors:
        raise errors[0]
    return None, tuple(strays)


def head_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of heads among the names of files, newest first."""
    return sorted((int(Path(name).stem) for name in names if HEAD.fullmatch(name)), reverse=True)


def _first_format(
    layout: RunLayout, manifest: RunManifest, faults: list[StoreDamagedError] | None
) -> Committed:
    names = visible_names(layout.segments) if check_folder(layout.segments) else []
    units = sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
    segments = _each((partial(_first_segment, layout, unit) for unit in units), faults)
    return Committed(manifest, segments, None, ())


def _first_segment(layout: RunLayout, unit: str) -> SegmentManifest:
    path = layout.segment(unit)
    segment = SegmentManifest.from_json(_read(path), str(path), 1)
    if segment.unit != unit:
        raise StoreDamagedError(f"{path}: is of the unit {segment.unit!r}")
    return segment


def _each(
    readers: Iterable[Callable[[], SegmentManifest]], faults: list[StoreDamagedError] | None
) -> dict[str, SegmentManifest]:
    segments = {}
    for read in readers:
        try:
            segment = read()
        except StoreDamagedError as error:
            if faults is None:
                raise
            faults.append(error)
        else:
            segments[segment.unit] = segment
    return segments


def _segment_names(layout: RunLayout) -> tuple[list[str], list[Path]]:
    """The names of the manifests of units, and what else is there."""
    names = visible_names(layout.segments) if check_folder(layout.segments) else []
    proper = {name for name in names if is_segment(name)}
    return sorted(proper), [layout.segments / name for name in sorted({*names} - proper)]


def _listed(layout: RunLayout, entry: FileEntry) -> tuple[str, str]:
    """The unit whose manifest a head lists, and the manifest's hash."""
    folder, _, name = entry.path.rpartition("/")
    if folder != layout.segments.name or not name.endswith(".json"):
        raise StoreDamagedError(f"expected a file in {layout.segments}, got {entry.path!r}")
    return name.removesuffix(".json"), entry.sha256


def _segment(layout: RunLayout, unit: str, run_sha256: str, sha256: str) -> SegmentManifest:
    """Read a unit's manifest, whose hash must be ``sha256`` where a head says one."""
    # as text: paths of ten thousand cost a tenth of a second
    path = f"{layout.segments}/{unit}.json"
    text = _read(path)
    if sha256 and sha256_of_text(text) != sha256:
        raise StoreDamagedError(f"{path} is not the manifest that the run was completed with")
    segment = SegmentManifest.from_json(text, path)
    _expect_place(layout, path, segment.run_id, segment.path)
    if segment.unit != unit:
        raise StoreDamagedError(f"{path}: is of the unit {segment.unit!r}")
    if segment.run_sha256 != run_sha256:
        raise StoreDamagedError(
            f"{layout.manifest} is not the one that the unit {unit} was committed under"
        )
    return segment


def _expect_place(layout: RunLayout, path: str, run_id: str, place: str) -> None:
    if run_id != layout.run_id:
        raise StoreDamagedError(f"{path}: is of the run {run_id!r}")
    if f"{layout.root}/{place}" != path:
        raise StoreDamagedError(f"{path}: belongs at {place!r}")


def _read(path: str | Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise StoreDamagedError(f"{path} is missing") from error
