"""The files of a snapshot's tables, checked before a table is first read."""

from collections.abc import Collection

from moedb.errors import StoreDamagedError
from moedb.store.engine.duckdb_errors import file_is_gone
from moedb.store.reading.snapshot import RunSnapshot, Snapshot, check_sum, check_table


class TableFiles:
    """What a connection over a snapshot reads.

    Parameters
    ----------
    snapshot
        The snapshot.
    hashed
        The runs of which every byte of a table is read against its hash before the table is read;
        of the others the sizes of the files are looked at.
    """

    def __init__(self, snapshot: Snapshot, hashed: Collection[str] = ()) -> None:
        self._snapshot = snapshot
        self._hashed = frozenset(hashed)

    @property
    def folders(self) -> list[str]:
        """The folders of the tables' files, which hold no links."""
        return [
            f"{run.place.root}/{folder}"
            for _, run in sorted(self._snapshot.runs.items())
            for folder in run.table_folders
        ]

    def of_table(self, table: str) -> list[str]:
        """The files of a table, in the order of runs and units, after checking them.

        Raises
        ------
        StoreDamagedError
            If one is not what was committed.
        StoreError
            If one is gone since the snapshot was taken.
        """
        for run in self._snapshot.runs.values():
            try:
                check_table(run, table)
                if run.run_id in self._hashed:
                    for unit, entry in run.table_entries(table):
                        check_sum(run, unit, entry)
            except (FileNotFoundError, StoreDamagedError):
                _expect_there(run, table)
                raise
        return self._snapshot.file_names(table)


def _expect_there(run: RunSnapshot, table: str) -> None:
    for _, entry in run.table_entries(table):
        if not run.place.is_there(entry.path):
            raise file_is_gone(f"{run.place.root}/{entry.path}")
