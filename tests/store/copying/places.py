"""What copies are held against: the files of a run that count, byte by byte."""

from pathlib import Path

from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import read_run

IGNORED = (".commit.lock",)


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store, but for locks."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name not in IGNORED
    }


def counting_files(store: Path, run_id: str) -> dict[str, bytes]:
    """The files of a run that count: of a complete one those that its newest head names."""
    run = read_run(store, run_id)
    layout = RunLayout(store, run_id)
    paths = {layout.manifest, *layout.arrays.rglob("zarr.json")}
    if layout.name.exists():
        paths.add(layout.name)
    if run.head is not None:
        paths.add(layout.head(run.head.number))
    paths.update(layout.segment(unit) for unit in run.segments)
    paths.update(layout.folder / entry.path for _, entry in run.entries())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(paths)}
