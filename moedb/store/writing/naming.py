"""Calling a run by a name of one's own."""

from pathlib import Path

from moedb.errors import UsageError
from moedb.schemas.run_names import RunName
from moedb.store.containment import check_file
from moedb.store.files import write_over
from moedb.store.layout import RunLayout
from moedb.store.reading.naming import read_name
from moedb.store.reading.snapshot import Snapshot, take_snapshot
from moedb.store.writing.open_run import OpenRun
from moedb.store.writing.writability import check_writable, is_store


def check_name_is_free(store: Path, name: str | None, run_id: str) -> None:
    """Check that a run may be called ``name``: no other run of the store is.

    Raises
    ------
    UsageError
        If another run has this name, or its own name begins so.
    """
    if name is not None and is_store(store):
        _check_free(take_snapshot(store), name, run_id)


def name_run(store: Path, run_id: str, named: RunName) -> None:
    """Give a run a name and a note, in the place of those that it has.

    Parameters
    ----------
    store, run_id
        The run, by its whole name. It may be incomplete.
    named
        The name and the note. None leaves what there is.

    Raises
    ------
    UsageError
        If another run is called so.
    StoreError
        If the store cannot be written to, or the run was deleted.
    """
    check_writable(store, run_id)
    snapshot = take_snapshot(store)
    if named.name is not None:
        _check_free(snapshot, named.name, run_id)
    _Naming(RunLayout(store, run_id)).change(named)


class _Naming(OpenRun):
    def change(self, named: RunName) -> None:
        with self._deletion_explained(), self._locked():
            place = self.layout.name
            check_file(place)
            now = read_name(self.layout)
            changed = RunName(
                now.name if named.name is None else named.name,
                now.note if named.note is None else named.note,
            )
            if changed != now:
                write_over(place, changed.to_json())


def _check_free(snapshot: Snapshot, name: str, run_id: str) -> None:
    for other, run in sorted(snapshot.runs.items()):
        if run.named.name == name and other != run_id:
            raise UsageError(
                f"the name {name!r} is taken: run {other} is called so",
                f"choose another, or call that run something else: moedb name {other} NAME",
            )
    begun = [each for each in {*snapshot.runs, *snapshot.damaged} if each.startswith(name)]
    if begun and begun != [run_id]:
        raise UsageError(
            f"the name {name!r} is taken: what run {min(begun)} is stored as begins so",
            "choose another",
        )
