"""Answers of long analyses, kept in the user's cache folder.

An answer follows from the values of its parameters, from what was committed of complete runs, and
from the versions that computed it; those together are its file's name. A file that is cut short, or
of something else, is computed anew.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.queries.results.result import Computed
from moedb.schemas.version import __version__
from moedb.store.files import sha256_of_json, write_over

if TYPE_CHECKING:
    from moedb.queries.analyses.analysis import Analysis
    from moedb.store.reading.snapshot import RunSnapshot, Snapshot

logger = logging.getLogger(__name__)

FOLDER = "MOEDB_CACHE"
"""The variable that names the folder; empty to keep nothing."""

MOST_KEPT = 1000
"""Files of the folder; the ones that were not asked for the longest are deleted."""


def cache_folder() -> Path | None:
    """The folder of kept answers: ``MOEDB_CACHE``, else moedb's in the user's cache folder."""
    named = os.environ.get(FOLDER)
    if named is not None:
        return Path(named) if named else None
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "moedb" / "answers"


def answer_or_compute(
    analysis: "Analysis",
    snapshot: "Snapshot",
    values: Mapping[str, Any],
    compute: Callable[[], Computed],
) -> Computed:
    """Return the kept answer of an analysis, or compute it, and keep it.

    Parameters
    ----------
    analysis
        The analysis.
    snapshot
        What is read.
    values
        The values of its parameters, runs by their whole names.
    compute
        Computes it.
    """
    place = _place(analysis, snapshot, values)
    if place is not None:
        found = _read(place, len(analysis.columns))
        if found is not None:
            return found
    computed = compute()
    runs = [snapshot.runs.get(run_id) for run_id in computed.run_ids]
    named = {str(value) for value in values.values()}
    if place is not None and all(run is not None and run.run_id in named for run in runs):
        _write(place, computed)
    return computed


def _place(analysis: "Analysis", snapshot: "Snapshot", values: Mapping[str, Any]) -> Path | None:
    folder = cache_folder()
    runs = [run for name in ("run", "run_b") if (run := snapshot.runs.get(str(values.get(name))))]
    if folder is None or not analysis.is_long or not runs:
        return None
    contents = [_content(run) for run in runs]
    if None in contents:
        return None
    key = sha256_of_json(
        {"values": dict(values), "runs": contents, "versions": _versions(), "asked": analysis.name}
    )
    return folder / f"{analysis.name}-{key[:32]}.json"


def _content(run: "RunSnapshot") -> list[str] | None:
    """What a complete run consists of: the hashes in its head, which cover every file."""
    if run.head is None:
        return None
    return [run.run_id, run.head.run_sha256, *(entry.sha256 for entry in run.head.segments)]


@cache
def _versions() -> dict[str, str]:
    return {"moedb": __version__, **{name: version(name) for name in ("numpy", "scikit-learn")}}


def _read(place: Path, n_columns: int) -> Computed | None:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        rows = [tuple(row) for row in content["rows"]]
        if content["sha256"] != sha256_of_json(content["rows"]) or any(
            len(row) != n_columns for row in rows
        ):
            return None
        splits = content["splits_read"]
        place.touch()
        return Computed(
            rows,
            str(content["sql"]),
            tuple(map(str, content["run_ids"])),
            None if splits is None else tuple(map(str, splits)),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(place: Path, computed: Computed) -> None:
    rows = [list(row) for row in computed.rows]
    content = {
        "rows": rows,
        "sha256": sha256_of_json(rows),
        "sql": computed.sql,
        "run_ids": computed.run_ids,
        "splits_read": computed.splits_read,
    }
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_over(place, json.dumps(content))
        _forget(place.parent)
    except OSError as error:  # there is an answer all the same
        logger.info("the answer is not kept: %s", error)


def _forget(folder: Path) -> None:
    kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[MOST_KEPT:]:
        with suppress(OSError):
            path.unlink()
