"""A store on object storage: what is listed of it and fetched, once, when it is opened."""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from moedb.errors import StoreDamagedError, StoreNotFoundError
from moedb.store.layout import (
    ARRAYS,
    HEAD,
    STORE_MANIFEST,
    is_segment,
)
from moedb.store.reading.places.file_systems import cannot_reach, checked_url, file_system

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LARGEST_MANIFEST = 1 << 28
"""Bytes of a manifest at most."""

_RUN_NAME = re.compile(r"[\w.=+-]+", re.ASCII)


class RemoteStore:
    """A store that is elsewhere, and a folder with its manifests.

    Parameters
    ----------
    url
        Its address.

    Attributes
    ----------
    url
        Its address, without a slash at the end.
    folder
        A folder of this process that is laid out as the store is and holds its manifests alone; it
        goes with this object.
    file_system
        What reads it.

    Raises
    ------
    UsageError
        If that is no address of a store, or what reaches it is not installed.
    StoreNotFoundError
        If there is no store.
    StoreError
        If it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        self.file_system: AbstractFileSystem = file_system(self.url)
        self._temporary = tempfile.TemporaryDirectory(prefix="moedb-manifests-")
        self.folder = Path(self._temporary.name)
        self._sizes: dict[str, dict[str, int]] = {}
        try:
            self._fetch()
        except (StoreDamagedError, StoreNotFoundError):
            raise
        except Exception as error:  # of any kind: each file system has its own
            raise cannot_reach(self.url, error) from error

    def sizes(self, run_id: str, part: str) -> dict[str, int]:
        """The files in a folder of a run, however deep, with their bytes.

        It is listed when it is first asked for: whatever a manifest names was there before it.

        Raises
        ------
        StoreError
            If it cannot be listed.
        """
        place = f"runs/{run_id}/{part}"
        if place not in self._sizes:
            try:
                self._sizes[place] = self._listed(place)
            except Exception as error:
                raise cannot_reach(f"{self.url}/{place}", error) from error
        return self._sizes[place]

    def read(self, path: str) -> bytes:
        """Read a file of the store.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        try:
            found: bytes = self.file_system.cat_file(f"{self.url}/{path}")
        except Exception as error:
            raise cannot_reach(f"{self.url}/{path}", error) from error
        return found

    def fetch(self, paths: Iterable[str]) -> None:
        """Bring some files into the folder, those that are there, as they are now.

        Raises
        ------
        StoreError
            If one cannot be read.
        """
        missing = [path for path in paths if not (self.folder / path).exists()]
        try:
            self._bring(missing)
        except Exception as error:
            raise cannot_reach(self.url, error) from error

    def _fetch(self) -> None:
        self._bring([STORE_MANIFEST])
        if not (self.folder / STORE_MANIFEST).exists():
            raise StoreNotFoundError(
                f"there is no moedb store at {self.url}",
                f"copy one there: moedb copy moedb-store {self.url}",
            )
        (self.folder / "runs").mkdir()
        for run_id in self._run_names():
            run = f"runs/{run_id}"
            (self.folder / run).mkdir()
            wanted = [f"{run}/run.json", f"{run}/name.json"]
            # heads first: what the newest one names is there then
            for part, is_one in (("heads", HEAD.fullmatch), ("segments", is_segment)):
                listed = self._listed(f"{run}/{part}")
                (self.folder / run / part).mkdir()
                for path, size in listed.items():
                    name = PurePosixPath(path).name
                    if path == f"{part}/{name}" and is_one(name):
                        if size > LARGEST_MANIFEST:
                            raise StoreDamagedError(f"{self.url}/{run}/{path} has {size} bytes")
                        wanted.append(f"{run}/{path}")
            self._bring(wanted)

    def _run_names(self) -> list[str]:
        try:
            entries: list[dict[str, Any]] = self.file_system.ls(f"{self.url}/runs", detail=True)
        except FileNotFoundError:
            return []
        names = (PurePosixPath(e["name"]).name for e in entries if e["type"] == "directory")
        return sorted(name for name in names if _RUN_NAME.fullmatch(name) and name[0] != ".")

    def _listed(self, place: str) -> dict[str, int]:
        """Files below a place of the store, by their names within its run, with their bytes."""
        root = self.file_system._strip_protocol(f"{self.url}/{place}").rstrip("/")
        found: dict[str, dict[str, Any]] = self.file_system.find(f"{self.url}/{place}", detail=True)
        part = PurePosixPath(place).name
        return {
            f"{part}/{name.removeprefix(root).lstrip('/')}": int(entry["size"] or 0)
            for name, entry in found.items()
            if name.startswith(f"{root}/")
        }

    def _bring(self, paths: list[str]) -> None:
        if not paths:
            return
        names = {self.file_system._strip_protocol(f"{self.url}/{path}"): path for path in paths}
        found: dict[str, Any] = self.file_system.cat(list(names), on_error="return")
        for name, content in found.items():
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, Exception):
                raise content
            target = self.folder / names[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def metadata_paths(run_id: str, keys: Iterable[str]) -> list[str]:
    """The metadata of arrays of a run, and of the groups that they are in."""
    places = {"", *keys, *(key.partition("/")[0] for key in keys)}
    return [f"runs/{run_id}/{PurePosixPath(ARRAYS) / place / 'zarr.json'}" for place in places]
