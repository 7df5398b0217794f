"""Whether a store can be written: asked before anything expensive is done for it."""

import errno
import os
import tempfile
from pathlib import Path

from moedb.errors import StoreError, StoreVersionError
from moedb.schemas.manifests import FORMAT_VERSION, StoreManifest
from moedb.schemas.tables import FORMAT_MAJOR
from moedb.store.containment import check_tree
from moedb.store.files import create_exclusively, make_directories, write_over
from moedb.store.layout import STORE_MANIFEST, RunLayout, runs_folder
from moedb.store.reading.listing import check_store, read_store
from moedb.store.reading.snapshot import take_snapshot

_HINT = "name another folder: --store DIR, or MOEDB_STORE"


def is_store(store: Path) -> bool:
    """Whether ``store`` is a store by now, or a new or empty folder that can become one.

    Raises
    ------
    StoreError
        If it is neither, or a store that cannot be read.
    """
    try:
        if os.path.lexists(store / STORE_MANIFEST):
            check_store(store)
            return True
        if _holds_something_else(store):
            raise StoreError(
                f"{store} is neither empty nor a moedb store", "name another folder: --store DIR"
            )
    except OSError as error:
        raise StoreError(f"cannot read {store}: {error.strerror}", _HINT) from error
    return False


def check_writable(store: Path, run_id: str | None = None) -> None:
    """Check that a run can be written into ``store``, by making something where it will be.

    Raises
    ------
    StoreError
        If it can't: the folder holds something else, cannot be made or written to, or what is there
        of the run leads out of it.
    """
    if is_store(store):
        _check_format(store)
    if run_id is not None:
        check_tree(RunLayout(store, run_id).folder)
    folder = store
    try:
        folder = _nearest(RunLayout(store, run_id).folder if run_id else runs_folder(store))
        if not folder.is_dir():
            raise StoreError(f"cannot make the store {store}: {folder} is no folder", _HINT)
        Path(tempfile.mkdtemp(prefix=f".{STORE_MANIFEST}.", dir=folder)).rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk is told of elsewhere
            raise StoreError(
                f"cannot write the store {store}: in {folder}: {error.strerror}", _HINT
            ) from error


def check_worth_capturing(store: Path) -> None:
    """Check that a capture may have a use, before it is known which run it is.

    A store that cannot be written will do where the run may be complete in it already.

    Raises
    ------
    StoreError
        If it cannot be written, and holds no complete run.
    """
    try:
        check_writable(store)
    except StoreError:
        if not is_store(store):
            raise
        if not any(run.is_complete for run in take_snapshot(store).runs.values()):
            raise


def _nearest(folder: Path) -> Path:
    """The nearest folder, or file, to ``folder`` that is there."""
    folder = folder.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def ensure_store(store: Path) -> None:
    """Make ``store`` a store if it is a new or empty folder; check it otherwise.

    Raises
    ------
    StoreError
        If the folder holds something else, or is a store that cannot be read.
    """
    if not is_store(store):
        make_directories(store)
        create_exclusively(store / STORE_MANIFEST, StoreManifest().to_json())
    _check_format(store)


def _check_format(store: Path) -> None:
    """Check that the store is of the format that is written."""
    found = read_store(store)
    if found.major != FORMAT_MAJOR:
        raise StoreVersionError(
            f"the store {store} has format {found.major}, which is read but no longer written; "
            f"this moedb writes format {FORMAT_MAJOR}",
            f"moedb migrate {store} NEW   makes a store of it that can be written; "
            "or name another one: --store DIR, or MOEDB_STORE",
        )
    if found.minor > FORMAT_VERSION[1]:
        written = ".".join(map(str, FORMAT_VERSION))
        raise StoreVersionError(
            f"the store {store} has format {found.major}.{found.minor}, which may hold what this "
            f"moedb does not know; it reads such a store and writes format {written}",
            "pip install --upgrade moedb   or name another store: --store DIR, or MOEDB_STORE",
        )


def raise_minor_version(store: Path) -> None:
    """Say in a store that can be written that it may hold what came with this minor version."""
    if read_store(store).minor < FORMAT_VERSION[1]:
        write_over(store / STORE_MANIFEST, StoreManifest().to_json())


def _holds_something_else(store: Path) -> bool:
    if not store.exists():
        return False
    if not store.is_dir():
        return True
    names = {entry.name for entry in store.iterdir()}
    # Another process may be making the store at this moment.
    return STORE_MANIFEST not in names and any(STORE_MANIFEST not in name for name in names)
