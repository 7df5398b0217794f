"""Which runs a store has: their names, whatever state they are in."""

import os
from pathlib import Path

from moedb.errors import StoreDamagedError, StoreNotFoundError, StoreVersionError
from moedb.schemas.manifests import FORMAT_VERSION, StoreManifest
from moedb.store.containment import check_folder, is_link, read_text
from moedb.store.layout import STORE_MANIFEST, RunLayout, runs_folder


def check_store(store: Path) -> int:
    """Check that ``store`` is one, as :func:`read_store` does, and return its major version."""
    return read_store(store).major


def read_store(store: Path) -> StoreManifest:
    """Check that ``store`` is a store that this version can read.

    Returns
    -------
    StoreManifest
        The version of its format.

    Raises
    ------
    StoreNotFoundError, StoreVersionError, StoreDamagedError
        If it isn't.
    """
    path = store / STORE_MANIFEST
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        state = "is not a moedb store" if store.is_dir() else "does not exist"
        raise StoreNotFoundError(
            f"the store {store} {state}",
            "make one with: moedb capture qwen-ioi   (or name yours: --store DIR, MOEDB_STORE)",
        ) from error
    manifest = StoreManifest.from_json(text, str(path))
    if manifest.major > FORMAT_VERSION[0]:
        raise StoreVersionError(
            f"the store {store} has format {manifest.major}.{manifest.minor}; "
            f"this moedb reads up to {FORMAT_VERSION[0]}.x",
            "pip install --upgrade moedb",
        )
    check_folder(runs_folder(store))
    return manifest


def removable_names(store: Path) -> list[str]:
    """The names of what can be deleted as a run, in order: what is in the folder of the runs.

    Names that cannot be printed are none of a run.

    Raises
    ------
    StoreDamagedError
        If that cannot be read.
    """
    folder = runs_folder(store)
    return [
        name
        for name in sorted(visible_names(folder) if check_folder(folder) else [])
        if name.isprintable() and (is_link(folder / name) or (folder / name).is_dir())
    ]


def run_names(store: Path) -> list[str]:
    """The names of the runs, in order, damaged ones included.

    Raises
    ------
    StoreDamagedError
        If they cannot be read.
    """
    return [name for name in removable_names(store) if not _is_unborn(RunLayout(store, name))]


def _is_unborn(layout: RunLayout) -> bool:
    """Whether a folder is no more than what is made before a run's configuration is written."""
    if is_link(layout.folder) or os.path.lexists(layout.manifest):
        return False
    try:
        names = set(visible_names(layout.folder))
        if names - {layout.segments.name}:
            return False
        return not names or (check_folder(layout.segments) and not visible_names(layout.segments))
    except StoreDamagedError:
        return False


def visible_names(folder: Path) -> list[str]:
    """The names in ``folder`` that do not begin with a dot; none where it is not there.

    Raises
    ------
    StoreDamagedError
        If it cannot be read.
    """
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreDamagedError(f"cannot read {folder}: {error.strerror}") from error
