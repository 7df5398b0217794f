"""A run that is worked on: its lock, a place to stage in, and whether it is still there."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from moedb.errors import StoreError
from moedb.schemas.manifests import FileEntry
from moedb.store.containment import check_file, check_tree, read_text
from moedb.store.files import sha256_of_file, sha256_of_text
from moedb.store.layout import STAGED, RunLayout
from moedb.store.reading.snapshot import RunSnapshot, read_run
from moedb.store.writing.sweeping import sweep_run


def timestamp() -> str:
    """Now, ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def file_entry(folder: Path, relative: str) -> FileEntry:
    """The entry of a file at a path within ``folder``."""
    path = folder / relative
    return FileEntry(relative, path.stat().st_size, sha256_of_file(path))


def deleted(run_id: str) -> StoreError:
    """What is said where a run was deleted under a writer."""
    return StoreError(
        f"run {run_id} was deleted while it was being written",
        "the same command captures it again",
    )


class OpenRun:
    """A run that somebody works on, beside others who may do so too, or delete it.

    Parameters
    ----------
    layout
        Its place.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self._configuration = self._read_configuration()

    def snapshot(self) -> RunSnapshot:
        """What is committed of the run now.

        Raises
        ------
        StoreError
            If the run was deleted, or is damaged.
        """
        with self._deletion_explained():
            found = read_run(self.layout.store, self.layout.run_id)
        self._check_there()
        return found

    @property
    def _run_sha256(self) -> str:
        if self._configuration is None:
            raise deleted(self.layout.run_id)
        return sha256_of_text(self._configuration)

    def _read_configuration(self) -> str | None:
        try:
            return read_text(self.layout.manifest)
        except OSError:
            return None

    def _check_there(self) -> None:
        """Check that the run is the one that this writer began with."""
        if self._configuration is None or self._read_configuration() != self._configuration:
            raise deleted(self.layout.run_id)

    @contextmanager
    def _deletion_explained(self) -> Iterator[None]:
        """Say of whatever goes wrong after the run was deleted that this is why."""
        try:
            yield
        except Exception:
            self._check_there()
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the run's lock, which keeps others from committing and from deleting the run."""
        self._check_there()
        check_file(self.layout.lock)
        with FileLock(self.layout.lock):
            try:
                self._check_there()
            except StoreError:
                if not os.path.lexists(self.layout.manifest):  # taking the lock made it anew
                    self.layout.lock.unlink(missing_ok=True)
                raise
            yield

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a folder of this writer's own; its lock says that the writer is alive."""
        folder = self.layout.staging / f"{os.getpid()}-{secrets.token_hex(6)}"
        lock = _staging_lock(folder)
        while not self._make_staging(folder, lock):
            pass
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
            self._remove_stub()

    def _make_staging(self, folder: Path, lock: FileLock) -> bool:
        """Make a folder and lock it; False where another writer swept it away meanwhile."""
        staging = self.layout.staging
        try:
            staging.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(staging) and not staging.is_dir():
                raise
            return False  # it was there, and when mkdir looked what it was it was gone
        with suppress(FileNotFoundError):
            lock.acquire()
            if Path(lock.lock_file).exists():
                folder.mkdir()
                return True
        lock.release()
        return False

    def _remove_stub(self) -> None:
        """Remove the folders that staging made anew where the run was deleted meanwhile."""
        if os.path.lexists(self.layout.manifest):
            return
        with suppress(OSError):
            self.layout.staging.rmdir()
        with suppress(OSError):
            self.layout.folder.rmdir()

    def _remove_orphans(self) -> None:
        """Delete files that writers left when they were stopped: nothing names them."""
        with self._locked():
            check_tree(self.layout.folder)
            sweep_run(self.snapshot())
            self._sweep_staging()

    def _sweep_staging(self) -> None:
        """Delete what dead writers staged; the folders of those at work are locked."""
        staging = self.layout.staging
        if not staging.is_dir():
            return
        names = {entry.name.removesuffix(".lock") for entry in staging.iterdir()}
        for folder in (staging / name for name in names if STAGED.fullmatch(name)):
            lock = _staging_lock(folder)
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):
            staging.rmdir()


def _staging_lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))
