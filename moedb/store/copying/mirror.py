"""A mirror of a run that is being captured: its units are copied as they are committed."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from moedb.errors import MoedbError
from moedb.schemas.manifests import RunManifest, StoreManifest
from moedb.store.copying.local_target import LocalTarget
from moedb.store.copying.runs import Copied, copy_runs, source_of, target_of
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import Snapshot, read_run

PAUSE = 5.0
"""Seconds between two looks at what was committed, at least."""

SHARE = 4
"""How many times as long as the last copy took nothing is copied."""


class Mirror:
    """Copies what is committed of a run, on a thread of its own, until its context ends.

    What goes wrong does not reach the capture: it is ``problem`` at the end.

    Parameters
    ----------
    store, run_id
        The run.
    target
        The store that it is copied to: an address, or a folder.

    Attributes
    ----------
    problem
        What kept the run from being copied, as the last attempt says; None where it is there.
    copied
        What the last attempt did, if it worked.
    """

    def __init__(self, store: Path, run_id: str, target: str | Path) -> None:
        self._store, self._run_id = store, run_id
        self._place, self._target = target, target_of(target)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moedb-mirror", daemon=True)
        self.problem: MoedbError | None = None
        self.copied: Copied | None = None

    @property
    def command(self) -> str:
        """What finishes the copy."""
        return f"moedb copy {self._store} {self._place} --run {self._run_id}"

    def claim(self, manifest: RunManifest) -> None:
        """Agree with other machines on what the run is, before it is begun here.

        Where the mirror has it, what is committed there is brought here first; where not, it is
        begun there, so that whoever comes next finds it.
        """
        if os.path.lexists(RunLayout(self._store, self._run_id).manifest):
            return
        try:
            self._target.prepare(StoreManifest())
            with self._target.opened(self._run_id, False) as place:
                begun = place.there() is None and place.begin(manifest.to_json())
            if not begun:
                found = source_of(self._place).only(self._run_id)
                list(copy_runs(found, LocalTarget(self._store)))
        except MoedbError as error:
            self.problem = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if kind is None or issubclass(kind, Exception):
            self._thread.join()
            self._copy()

    def _run(self) -> None:
        pause = PAUSE
        while not self._done.wait(pause):
            started = time.monotonic()
            self._copy()
            pause = max(PAUSE, SHARE * (time.monotonic() - started))

    def _copy(self) -> None:
        if not os.path.lexists(RunLayout(self._store, self._run_id).manifest):
            return
        try:
            run = read_run(self._store, self._run_id)
            source = Snapshot(self._store, {run.run_id: run})
            (self.copied,) = copy_runs(source, self._target)
            self.problem = None
        except MoedbError as error:
            self.problem = error
