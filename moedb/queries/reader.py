"""What questions are asked of: SQL over a snapshot of a store."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from moedb.queries.result import Result
    from moedb.store.snapshot import Snapshot


class Reader(Protocol):
    """What reads a snapshot; :class:`~.database.Database` does."""

    @property
    def snapshot(self) -> "Snapshot":
        """What is read."""
        ...

    def sql(self, statement: str, parameters: Mapping[str, object] | None = None) -> "Result":
        """Run one SQL statement that reads."""
        ...
