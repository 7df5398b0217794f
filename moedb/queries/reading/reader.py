"""What analyses and checks are typed on: SQL and arrays over a snapshot of a store."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import zarr

    from moedb.queries.reading.memo import Memo
    from moedb.queries.reading.references import SplitSizes
    from moedb.queries.results.result import Result
    from moedb.store.reading.snapshot import Snapshot


class SnapshotReader(Protocol):
    """What reads a snapshot; :class:`moedb.queries.database.Database` does."""

    @property
    def memo(self) -> "Memo":
        """What was computed of complete runs."""
        ...

    @property
    def snapshot(self) -> "Snapshot":
        """What is read."""
        ...

    @property
    def split_sizes(self) -> "SplitSizes":
        """The sizes of the splits of each run."""
        ...

    def sql(self, statement: str, parameters: Mapping[str, object] | None = None) -> "Result":
        """Run one SQL statement that reads."""
        ...

    def array(self, run: str | None, name: str, layer: int) -> "zarr.Array[Any]":
        """Open one array of a run; its rows are ``tokens.array_row``."""
        ...
