"""Where things are in a store."""

from dataclasses import dataclass
from pathlib import Path

STORE_MANIFEST = "moedb.json"
FIRST_UNIT = "first"
"""The segment with the rows that describe the run as a whole; committed before any unit."""
FINAL_UNIT = "final"
"""The segment with the run's row of ``runs``; committed after every unit, it ends the run."""


def unit_name(unit: int) -> str:
    """The name of unit number ``unit`` in files."""
    return f"{unit:06d}"


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run."""

    store: Path
    run_id: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.store / "runs" / self.run_id

    @property
    def manifest(self) -> Path:
        """``run.json``."""
        return self.folder / "run.json"

    @property
    def segments(self) -> Path:
        """The folder of the units' manifests."""
        return self.folder / "segments"

    @property
    def tables(self) -> Path:
        """The folder of the tables."""
        return self.folder / "tables"

    @property
    def arrays(self) -> Path:
        """The Zarr group of the arrays."""
        return self.folder / "arrays.zarr"

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
