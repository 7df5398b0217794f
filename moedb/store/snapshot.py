"""A consistent view of a store: the manifests, read once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from moedb.errors import (
    RunNotFoundError,
    StoreDamagedError,
    StoreNotFoundError,
    StoreVersionError,
    did_you_mean,
)
from moedb.schemas.manifests import FORMAT_VERSION, RunManifest, SegmentManifest, StoreManifest
from moedb.schemas.tables import RUNS
from moedb.store.files import sha256_of_json
from moedb.store.layout import FINAL_UNIT, FIRST_UNIT, STORE_MANIFEST, RunLayout, unit_name


@dataclass(frozen=True)
class RunSnapshot:
    """One run as it was when the snapshot was taken: what is committed, and nothing else."""

    layout: RunLayout
    manifest: RunManifest
    segments: dict[str, SegmentManifest]

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.manifest.run_id

    @property
    def is_complete(self) -> bool:
        """Whether every unit is committed."""
        return FINAL_UNIT in self.segments

    @property
    def missing_units(self) -> list[int]:
        """Numbers of the units that are not committed yet."""
        planned = range(len(self.manifest.units))
        return [unit for unit in planned if unit_name(unit) not in self.segments]

    @property
    def row(self) -> dict[str, Any]:
        """The run's row of the table ``runs``."""
        final = self.segments.get(FINAL_UNIT)
        derived = {
            "run_id": self.run_id,
            "status": "complete" if final else "incomplete",
            "finished_at": final.committed_at if final else None,
        }
        return {name: derived.get(name, self.manifest.row.get(name)) for name in RUNS.column_names}

    def files(self, table: str) -> list[Path]:
        """The committed Parquet files of a table, in the order of the units."""
        return [
            self.layout.folder / segment.tables[table].file.path
            for _, segment in sorted(self.segments.items())
            if table in segment.tables
        ]

    def n_rows(self, table: str) -> int:
        """Committed rows of a table."""
        return sum(
            segment.tables[table].n_rows
            for segment in self.segments.values()
            if table in segment.tables
        )

    def n_bytes(self) -> int:
        """Bytes of the committed files."""
        return sum(
            sum(entry.file.n_bytes for entry in segment.tables.values())
            + sum(shard.n_bytes for shard in segment.shards)
            for segment in self.segments.values()
        )


@dataclass(frozen=True)
class Snapshot:
    """All runs of a store at one moment.

    Attributes
    ----------
    store
        The store's folder.
    runs
        The runs by name.
    chosen
        The default run, where one was named; else it is the newest complete one.
    """

    store: Path
    runs: dict[str, RunSnapshot]
    chosen: str | None = None

    def only(self, run_id: str) -> "Snapshot":
        """Return the snapshot of one run, which is then the default run whatever its status."""
        run = self.run(run_id)
        return replace(self, runs={run.run_id: run}, chosen=run.run_id)

    def run(self, run_id: str) -> RunSnapshot:
        """Return a run by its name, or by an unambiguous beginning of it.

        Raises
        ------
        RunNotFoundError
            If there is none, or the beginning fits several.
        """
        if run_id in self.runs:
            return self.runs[run_id]
        begun = [name for name in self.runs if name.startswith(run_id)] if run_id else []
        if len(begun) == 1:
            return self.runs[begun[0]]
        if begun:
            raise RunNotFoundError(
                f"{run_id!r} is the beginning of several runs: {', '.join(sorted(begun))}"
            )
        raise RunNotFoundError(
            f"no run named {run_id!r} in {self.store}; {did_you_mean(run_id, self.runs)}",
            "moedb runs",
        )

    def newest_complete(self) -> RunSnapshot | None:
        """The complete run that was started last, if there is one.

        Runs made from another one, such as interventions on it, hold no routing of their own, so
        they are for those who name them.
        """
        if self.chosen is not None:
            return self.runs[self.chosen]
        complete = [
            run
            for run in self.runs.values()
            if run.is_complete and run.row["parent_run_id"] is None
        ]
        return max(complete, key=lambda run: (run.row["created_at"], run.run_id), default=None)

    def files(self, table: str) -> list[Path]:
        """The committed Parquet files of a table over all runs."""
        return [path for _, run in sorted(self.runs.items()) for path in run.files(table)]

    @cached_property
    def sha256(self) -> str:
        """A hash over everything that is committed."""
        return sha256_of_json(
            [
                (run_id, unit, sorted(e.file.sha256 for e in segment.tables.values()))
                for run_id, run in sorted(self.runs.items())
                for unit, segment in sorted(run.segments.items())
            ]
        )


def check_store(store: Path) -> None:
    """Check that ``store`` is a store that this version can read.

    Raises
    ------
    StoreNotFoundError, StoreVersionError, StoreDamagedError
        If it isn't.
    """
    path = store / STORE_MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        state = "is not a moedb store" if store.is_dir() else "does not exist"
        raise StoreNotFoundError(
            f"the store {store} {state}",
            "make one with: moedb capture qwen-ioi   (or name yours: --store DIR, MOEDB_STORE)",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"cannot read {path}: {error}") from error
    manifest = StoreManifest.from_json(text, str(path))
    if manifest.major > FORMAT_VERSION[0]:
        raise StoreVersionError(
            f"the store {store} has format {manifest.major}.{manifest.minor}; "
            f"this moedb reads up to {FORMAT_VERSION[0]}.x",
            "pip install --upgrade moedb",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"cannot read {path}: {error}") from error


def read_run(store: Path, run_id: str) -> RunSnapshot:
    """Read the manifests of one run and check that the files they name are there.

    Raises
    ------
    StoreDamagedError
        If a manifest is malformed, or a committed file is missing or cut short.
    """
    layout = RunLayout(store, run_id)
    manifest = RunManifest.from_json(_read(layout.manifest), str(layout.manifest))
    if manifest.run_id != run_id:
        raise StoreDamagedError(f"{layout.manifest}: is of the run {manifest.run_id!r}")
    segments = {}
    for path in sorted(layout.segments.glob("*.json")) if layout.segments.is_dir() else []:
        if not path.name.startswith("."):
            segments[path.stem] = SegmentManifest.from_json(_read(path), str(path))
    run = RunSnapshot(layout, manifest, segments)
    for segment in segments.values():
        for entry in segment.tables.values():
            _check_size(layout.folder / entry.file.path, entry.file.n_bytes, run_id)
    if run.is_complete and (run.missing_units or FIRST_UNIT not in segments):
        raise StoreDamagedError(
            f"run {run_id} says it is complete but lacks manifests in {layout.segments}",
            f"capture it again: moedb rm {run_id}",
        )
    return run


def _check_size(path: Path, n_bytes: int, run_id: str) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StoreDamagedError(
            f"run {run_id}: the committed file {path} is missing",
            f"restore it, or remove the run: moedb rm {run_id}",
        ) from error
    if found != n_bytes:
        raise StoreDamagedError(
            f"run {run_id}: {path} has {found} bytes, committed were {n_bytes}",
            f"restore it, or remove the run: moedb rm {run_id}",
        )


def run_ids(store: Path) -> Iterator[str]:
    """The names of the runs that have a configuration, in order."""
    folder = store / "runs"
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            if (entry / "run.json").is_file():
                yield entry.name


def take_snapshot(store: Path) -> Snapshot:
    """Read the manifests of all runs of ``store``, once.

    Raises
    ------
    StoreError
        If the store is missing, damaged or newer than this moedb.
    """
    check_store(store)
    return Snapshot(store, {run_id: read_run(store, run_id) for run_id in run_ids(store)})
