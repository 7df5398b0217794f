"""Where things are in a store, and what they are called."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from moedb.errors import UsageError
from moedb.schemas.manifests import ADDED

STORE_MANIFEST = "moedb.json"
FIRST_UNIT = "first"
"""The segment with the rows that describe the run as a whole; committed before any unit."""
FINAL_UNIT = "final"
"""The segment with the run's row of ``runs``; committed after every unit."""
COMPACTED = "compacted"
"""How the names of segments begin that stand for all units before them."""
ARRAYS = "arrays.zarr"
"""The folder of the arrays, in a run's."""
METADATA = "zarr.json"
"""The file that describes an array, or a group of them."""

STAGED = re.compile(r"\d+-[0-9a-f]+")
"""Names of the folders in which writers stage."""
SEGMENT = re.compile(rf"(?:{FIRST_UNIT}|{FINAL_UNIT}|\d{{6,}})\.json")
"""Names of the manifests of units."""
COMPACTED_SEGMENT = re.compile(rf"{COMPACTED}-\d{{6,}}-[0-9a-f]+\.json")
"""Names of the manifests of many units that were put together."""
ADDED_SEGMENT = re.compile(rf"{ADDED}\d{{6,}}-[0-9a-f]+\.json")
"""Names of the manifests of additions."""
HEAD = re.compile(r"\d{6,}\.json")
"""Names of heads."""
TEMPORARY = re.compile(r"\..*\.json\.\d+-[0-9a-f]+\.tmp")
"""Names of manifests that are being written."""
TABLE_FILE = re.compile(
    rf"(?:{FIRST_UNIT}|{FINAL_UNIT}|\d{{6,}}|{COMPACTED}-\d{{6,}}|{ADDED}\d{{6,}})-[0-9a-f]+"
    r"(?:-\d{4,})?\.parquet"
)
"""Names of the files of a table."""
DELETED = re.compile(r"\.deleted-.*-[0-9a-f]{16}", re.DOTALL)
"""Names of runs that are being deleted."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of two letters or more: C:/ is a disk


def is_url(store: str | Path) -> bool:
    """Whether a store is named by an address, and not as a folder."""
    return _URL.match(str(store)) is not None


def store_path(store: str | Path) -> Path:
    """Return the folder of a store that is written to, as its user names it.

    Raises
    ------
    UsageError
        If it is a URL.

    Examples
    --------
    >>> store_path("moedb-store").name
    'moedb-store'
    """
    text = str(store)
    if found := _URL.match(text):
        scheme = found[0].removesuffix(":/")
        raise UsageError(
            f"this takes a store in a folder on a disk, and not one at {scheme}://...; stores "
            "there are asked, and copied to and from",
            "name a folder (--store DIR, or MOEDB_STORE), and copy runs: moedb copy DIR URL",
        )
    return Path(store)


def runs_folder(store: Path) -> Path:
    """The folder of the runs."""
    return store / "runs"


def deleted_folder(store: Path, run_id: str) -> Path:
    """A new name for a run that is being deleted; no reader takes it for a run."""
    return runs_folder(store) / f".deleted-{run_id[:100]}-{secrets.token_hex(8)}"


def copying_folder(store: Path, run_id: str) -> Path:
    """Where a run that is copied into a store is put together; no reader takes it for a run."""
    return runs_folder(store) / f".copying-{run_id}"


def is_segment(name: str) -> bool:
    """Whether a file's name is one of a segment's manifest."""
    kinds = (SEGMENT, COMPACTED_SEGMENT, ADDED_SEGMENT)
    return any(kind.fullmatch(name) for kind in kinds)


def metadata_paths(arrays: Iterable[str]) -> list[str]:
    """Where in a run the metadata of arrays are, and those of the groups that they are in.

    Examples
    --------
    >>> metadata_paths(["router_input/3"])[1:]
    ['arrays.zarr/router_input/zarr.json', 'arrays.zarr/router_input/3/zarr.json']
    """
    places = {""}
    for array in arrays:
        places |= {array, array.partition("/")[0]}
    return [(PurePosixPath(ARRAYS) / place / METADATA).as_posix() for place in sorted(places)]


def unit_name(unit: int) -> str:
    """The name of unit number ``unit`` in files."""
    return f"{unit:06d}"


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run; of one on object storage those of its manifests, and its address."""

    store: Path
    run_id: str
    address: str = ""

    @cached_property
    def folder(self) -> Path:
        """The run's folder."""
        return runs_folder(self.store) / self.run_id

    @cached_property
    def root(self) -> str:
        """The run's folder as a text."""
        return str(self.folder)

    @property
    def manifest(self) -> Path:
        """``run.json``."""
        return self.folder / "run.json"

    @property
    def name(self) -> Path:
        """``name.json``: what the run is called by its user."""
        return self.folder / "name.json"

    @cached_property
    def segments(self) -> Path:
        """The folder of the units' manifests."""
        return self.folder / "segments"

    @property
    def heads(self) -> Path:
        """The folder of the heads, of which the newest says what a complete run consists of."""
        return self.folder / "heads"

    @property
    def tables(self) -> Path:
        """The folder of the tables."""
        return self.folder / "tables"

    @property
    def arrays(self) -> Path:
        """The Zarr group of the arrays."""
        return self.folder / ARRAYS

    @property
    def staging(self) -> Path:
        """Where units are written before they are committed."""
        return self.folder / ".staging"

    @property
    def lock(self) -> Path:
        """Held while a unit's files are moved to their places."""
        return self.folder / ".commit.lock"

    def segment(self, unit: str) -> Path:
        """The manifest of a unit."""
        return self.segments / f"{unit}.json"

    def head(self, number: int) -> Path:
        """The head of a number."""
        return self.heads / f"{number:06d}.json"

    def shown(self, text: object) -> str:
        """A text in which the run's folder is called by its address, where it has one."""
        return str(text).replace(self.root, self.address) if self.address else str(text)

    def relative(self, path: Path) -> str:
        """The place of a file of the run in its folder, as manifests name it."""
        return path.as_posix().removeprefix(f"{self.folder.as_posix()}/")
