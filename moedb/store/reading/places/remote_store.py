"""A store on object storage: what is listed of it and fetched, once, when it is opened."""

import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from moedb.errors import MoedbError, StoreDamagedError, StoreNotFoundError
from moedb.store.layout import (
    ARRAYS,
    HEAD,
    METADATA,
    STORE_MANIFEST,
    is_segment,
    metadata_paths,
)
from moedb.store.reading.places.file_systems import cannot_reach, checked_url, file_system

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LARGEST_MANIFEST = 1 << 28
"""Bytes of a manifest at most."""

SMALL = 1 << 16
"""Bytes that are asked for of a file of which it is not known how long it is."""
UNKNOWN = -1

AT_ONCE = 1 << 26
"""Bytes of manifests, about, that are held at a time."""

THREADS = 16
"""Runs that are listed at a time."""

RUN_NAME = re.compile(r"[\w=+-][\w.=+-]*", re.ASCII)
"""Names of runs on object storage; what is called otherwise is none."""


class RemoteStore:
    """A store that is elsewhere, and a folder with its manifests.

    A run counts from the moment that its ``run.json`` is there.

    Parameters
    ----------
    url
        Its address.
    runs
        The runs that are looked at; None for all.

    Attributes
    ----------
    url
        Its address, without a slash at the end.
    folder
        A folder of this process that is laid out as the store is and holds its manifests alone; it
        goes with this object.
    file_system
        What reads it.
    faults
        For each run whose manifests were not fetched, why.

    Raises
    ------
    UsageError
        If that is no address of a store, or what reaches it is not installed.
    StoreNotFoundError
        If there is no store.
    StoreError
        If it cannot be reached.
    """

    def __init__(self, url: str, runs: Collection[str] | None = None) -> None:
        self.url = checked_url(url)
        self.file_system: AbstractFileSystem = file_system(self.url, keeps_listings=True)
        self._temporary = tempfile.TemporaryDirectory(prefix="moedb-manifests-")
        self.folder = Path(self._temporary.name)
        self.faults: dict[str, StoreDamagedError] = {}
        self._sizes: dict[str, dict[str, int]] = {}
        try:
            self._fetch(runs)
        except StoreNotFoundError:
            raise
        except Exception as error:  # of any kind: each file system has its own
            raise cannot_reach(self.url, error) from error

    def shown(self, text: str) -> str:
        """A text in which the folder of the manifests is called by the store's address."""
        return text.replace(str(self.folder), self.url).replace(self.folder.as_posix(), self.url)

    @contextmanager
    def addressed(self) -> Iterator[None]:
        """Have the errors of a context name addresses, and not the folder of the manifests."""
        try:
            yield
        except MoedbError as error:
            error.message = self.shown(error.message)
            error.hint = None if error.hint is None else self.shown(error.hint)
            error.args = (error.message,)
            raise

    def sizes(self, run_id: str, part: str) -> Mapping[str, int]:
        """The files in a folder of a run, however deep, by their paths in it, with their bytes.

        It is listed when it is first asked for: whatever a manifest names was there before it.

        Raises
        ------
        StoreError
            If it cannot be listed.
        """
        place = f"runs/{run_id}/{part}"
        if place not in self._sizes:
            try:
                self._sizes[place] = self._listed(run_id, part)
            except Exception as error:
                raise cannot_reach(f"{self.url}/{place}", error) from error
        return self._sizes[place]

    def fetch(self, run_id: str, sizes: Mapping[str, int]) -> None:
        """Bring some files of a run into the folder, those that are there, as they are now.

        Parameters
        ----------
        run_id
            The run.
        sizes
            For each path in the run how long the file is, if that is known.

        Raises
        ------
        StoreDamagedError
            If one is larger than any of moedb's.
        StoreError
            If one cannot be read.
        """
        missing = {
            f"runs/{run_id}/{path}": size
            for path, size in sizes.items()
            if not (self.folder / "runs" / run_id / path).exists()
        }
        self._expect_small(missing)
        try:
            self._bring(missing)
        except Exception as error:
            raise cannot_reach(self.url, error) from error

    def _fetch(self, runs: Collection[str] | None) -> None:
        self.file_system.invalidate_cache()
        self._bring({STORE_MANIFEST: UNKNOWN})
        if not (self.folder / STORE_MANIFEST).exists():
            raise StoreNotFoundError(
                f"there is no moedb store at {self.url}",
                f"copy one there: moedb copy moedb-store {self.url}",
            )
        (self.folder / "runs").mkdir()
        names = self._run_names() if runs is None else [*runs]
        with ThreadPoolExecutor(max(1, min(THREADS, len(names)))) as pool:
            list(pool.map(self._fetch_run, names))

    def _fetch_run(self, run_id: str) -> None:
        run = f"runs/{run_id}"
        wanted = self._manifests(run_id)
        if f"{run}/run.json" not in wanted:
            return
        (self.folder / run).mkdir()
        try:
            self._expect_small(wanted)
        except StoreDamagedError as error:
            self.faults[run_id] = error
            (self.folder / run / "run.json").touch()
            return
        self._bring(wanted)

    def _manifests(self, run_id: str) -> dict[str, int]:
        """The manifests of a run, with their bytes; none where it has no ``run.json``."""
        run = f"runs/{run_id}"
        wanted = {
            f"{run}/{name}": size
            for name, size in self._files(run).items()
            if name in ("run.json", "name.json")
        }
        if f"{run}/run.json" not in wanted:
            return {}
        # heads first: what the newest one names is there then
        for part, is_one in (("heads", HEAD.fullmatch), ("segments", is_segment)):
            for path, size in self._listed(run_id, part).items():
                name = PurePosixPath(path).name
                if path == f"{part}/{name}" and is_one(name):
                    wanted[f"{run}/{path}"] = size
        return wanted

    def _expect_small(self, sizes: Mapping[str, int]) -> None:
        for path, size in sizes.items():
            if size > LARGEST_MANIFEST:
                raise StoreDamagedError(
                    f"{self.url}/{path} has {size:,} bytes, and no manifest has more than "
                    f"{LARGEST_MANIFEST:,}"
                )

    def _run_names(self) -> list[str]:
        names = (
            PurePosixPath(entry["name"]).name
            for entry in self._entries("runs")
            if entry["type"] == "directory"
        )
        return sorted(name for name in names if RUN_NAME.fullmatch(name))

    def _files(self, place: str) -> dict[str, int]:
        """The files in a folder, by name, with their bytes."""
        return {
            PurePosixPath(entry["name"]).name: int(entry["size"] or 0)
            for entry in self._entries(place)
            if entry["type"] == "file"
        }

    def _entries(self, place: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self.file_system.ls(f"{self.url}/{place}", detail=True)
        except FileNotFoundError:
            return []
        return found

    def _listed(self, run_id: str, part: str) -> dict[str, int]:
        """Files in a folder of a run, however deep, by their paths in the run, with their bytes."""
        place = f"{self.url}/runs/{run_id}/{part}"
        root = self.file_system._strip_protocol(place).rstrip("/")
        found: dict[str, dict[str, Any]] = self.file_system.find(place, detail=True)
        return {
            f"{part}/{name.removeprefix(f'{root}/')}": int(entry["size"] or 0)
            for name, entry in found.items()
            if name.startswith(f"{root}/")
        }

    def _bring(self, sizes: Mapping[str, int]) -> None:
        """Bring files of the store into the folder, many at a time."""
        for paths in _portions(sizes):
            asked = [path for path in paths if sizes[path]]
            # of a range it is not asked how long the file is
            ends = [max(sizes[path], SMALL) for path in asked]
            addresses = [f"{self.url}/{path}" for path in asked]
            found = self.file_system.cat_ranges(addresses, 0, ends, on_error="return")
            empty = dict.fromkeys(set(paths) - set(asked), b"")
            for path, content in {**empty, **dict(zip(asked, found, strict=True))}.items():
                if isinstance(content, FileNotFoundError):
                    continue
                if isinstance(content, Exception):
                    raise content
                target = self.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def _portions(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    portion: list[str] = []
    n_bytes = 0
    for path, size in sizes.items():
        if portion and n_bytes + size > AT_ONCE:
            yield portion
            portion, n_bytes = [], 0
        portion.append(path)
        n_bytes += size
    if portion:
        yield portion


def fetch_metadata(store: RemoteStore, run_id: str, keys: Iterable[str]) -> None:
    """Bring the metadata of arrays of a run, and of the groups that they are in, where they are.

    Raises
    ------
    StoreDamagedError
        If one is larger than any of moedb's.
    StoreError
        If they cannot be read.
    """
    keys = list(keys)
    of_arrays = {f"{ARRAYS}/{key}/{METADATA}" for key in keys}
    listed = {path: n for key in keys for path, n in store.sizes(run_id, f"{ARRAYS}/{key}").items()}
    wanted = (path for path in metadata_paths(keys) if path in listed or path not in of_arrays)
    store.fetch(run_id, {path: listed.get(path, UNKNOWN) for path in wanted})
