"""What of a study was done already: ``study.json`` in its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.commands.studies.command_lines import ADDING, MAKING_RUNS, OTHERS
from moedb.errors import MoedbError, UsageError
from moedb.store.files import make_directories, sha256_of_file, write_over

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import Snapshot

FILE = "study.json"
_VERSION = 1


@dataclass(frozen=True)
class Done:
    """A step that was done.

    Attributes
    ----------
    words
        Its command, filled in.
    seconds
        What it took.
    runs
        The runs that it made.
    read
        The runs that it named, with what they held: a hash over their tables.
    added
        What it added to the run that it names, by the names of the units.
    files
        The files that it wrote in the study's folder, with their hashes.
    store
        Where it reads and names no run, what the whole store held: a hash over the tables.
    """

    words: list[str]
    seconds: float
    runs: list[str] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    store: str | None = None

    @classmethod
    def of_step(
        cls,
        words: list[str],
        seconds: float,
        before: "Snapshot | None",
        after: "Snapshot",
        printed: str,
        files: Mapping[str, Path],
    ) -> "Done":
        """What a step did: what it printed, the files, and the store before and after it."""
        named = [run for word in words for run in word.split(",") if run in after.runs]
        made = [line for line in printed.splitlines() if line in after.runs]
        added: set[str] = set()
        if words[0] in ADDING and named:
            added = set(after.runs[named[0]].segments)
            if before is not None and named[0] in before.runs:
                added -= set(before.runs[named[0]].segments)
        return cls(
            words,
            seconds,
            made if words[0] in MAKING_RUNS else [],
            {run: after.only(run).sha256 for run in named},
            sorted(added),
            {name: sha256_of_file(path) for name, path in files.items()},
            after.sha256 if words[0] in OTHERS and not named else None,
        )

    def still_holds(self, words: list[str], snapshot: "Snapshot", folder: Path) -> bool:
        """Whether there is nothing to do for a step, as all of it is there still."""
        if words != self.words or self.store not in (None, snapshot.sha256):
            return False
        if any(run not in snapshot.runs or not snapshot.runs[run].is_complete for run in self.runs):
            return False
        for run, held in self.read.items():
            if run not in snapshot.runs:
                return False
            if words[0] in ADDING:
                if not set(self.added) <= set(snapshot.runs[run].segments):
                    return False
            elif not self.runs and snapshot.only(run).sha256 != held:
                return False
        return all(_is_same(folder / name, sha256) for name, sha256 in self.files.items())


def _is_same(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of_file(file) == sha256


class Journal:
    """The steps of a study that were done, by name; written after each.

    Parameters
    ----------
    folder
        The study's folder.

    Raises
    ------
    UsageError
        If what is there is no journal of a study.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.done: dict[str, Done] = {}
        if not self._path.exists():
            return
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            if told["version"] != _VERSION:
                raise ValueError(f"version {told['version']}")
            self.done = {name: Done(**each) for name, each in told["steps"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self._path} is no journal of a study: {error}",
                "name another folder with -o, or delete the file: the steps are then asked again, "
                "and runs that are in the store stay",
            ) from error

    def prepare(self) -> None:
        """Make the study's folder.

        Raises
        ------
        MoedbError
            If it cannot be made.
        """
        folder = self._path.parent
        try:
            make_directories(folder)
        except OSError as error:
            raise MoedbError(f"the folder {folder} cannot be made: {error}") from error

    def note(self, name: str, done: Done) -> None:
        """Note a step; the file is replaced as a whole."""
        self.done[name] = done
        told = {
            "version": _VERSION,
            "steps": {each: asdict(step) for each, step in self.done.items()},
        }
        try:
            write_over(self._path, json.dumps(told, indent=1) + "\n")
        except OSError as error:
            raise MoedbError(f"{self._path} cannot be written: {error}") from error


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """The files of a study's folder but its journal: when they were written, and how long."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and path.name != FILE:
            told = path.stat()
            found[path.relative_to(folder).as_posix()] = (told.st_mtime_ns, told.st_size)
    return found
