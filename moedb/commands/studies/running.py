"""Doing the steps of a study, those that are not done already."""

import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.studies.command_lines import (
    ADDING,
    MAKING_RUNS,
    check_options,
    filled,
    names_in,
)
from moedb.commands.studies.journal import Done, Journal, files_below
from moedb.commands.studies.pages import write_page
from moedb.commands.studies.study_file import HERE, OUTPUT, PAGE, Step, Study
from moedb.errors import MoedbError, StoreNotFoundError, UsageError

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import Snapshot


@dataclass(frozen=True)
class Task:
    """A step as it stands.

    Attributes
    ----------
    step
        The step.
    words
        Its command, filled in; where it names a run that is still to be made, that step's name
        stands in angle brackets.
    is_done
        Whether there is nothing to do for it.
    """

    step: Step
    words: list[str]
    is_done: bool


@dataclass
class StudyRun:
    """A study in a store, and the folder of its files.

    Attributes
    ----------
    study
        The study.
    settings
        The values of its settings.
    root
        moedb's own command, that the steps' belong to.
    store, folder
        Where the runs go, and the files.
    """

    study: Study
    settings: Mapping[str, str]
    root: click.Command
    store: Path
    folder: Path
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder)

    def steps(self) -> list[Step]:
        """The steps that there are with these settings."""
        return [s for s in self.study.steps if s.when is None or s.when in self.settings]

    def check(self) -> None:
        """Check every command as if it were typed.

        Raises
        ------
        UsageError
            If one is not as it has to be, or a file beside the study's that it names is not there:
            which step, and what is wrong.
        """
        runs = {step.name: step.name for step in self.study.steps}
        for step in self.steps():
            words = filled(step.words, self._values(runs, step))
            try:
                for path in _beside(step, words):
                    if not path.exists():
                        raise UsageError(f"there is no file {path}")
                if step.words[0] != PAGE:
                    check_options(self.root, words)
            except UsageError as error:
                raise UsageError(f"step {step.name}: {error.message}", error.hint) from error

    def tasks(self) -> list[Task]:
        """All steps as they stand now."""
        snapshot = self._snapshot()
        runs: dict[str, str] = {}
        found = []
        for step in self.steps():
            waits = any(
                runs.get(name, "").startswith("<") for name in names_in(step.words) if name in runs
            )
            words = filled(step.words, self._values(runs, step))
            done = self.journal.done.get(step.name)
            is_done = (
                not waits
                and done is not None
                and snapshot is not None
                and done.still_holds(words, snapshot, self.folder)
            )
            runs[step.name] = ",".join(done.runs) if is_done and done else f"<{step.name}>"
            found.append(Task(step, words, is_done))
        return found

    def do(self) -> Iterator[tuple[int, Task, Done | None]]:
        """Do the steps one after the other; yields each before it is done, and after it.

        Yields
        ------
        tuple
            The step's number, the step, and what was done; None before it is.
        """
        for number, step in enumerate(self.steps(), start=1):
            (task,) = (task for task in self.tasks() if task.step is step)
            yield number, task, None
            if task.is_done:
                continue
            yield number, task, self.do_task(task)

    def do_task(self, task: Task) -> Done:
        """Do a step, whether it was done or not, and note it.

        Raises
        ------
        MoedbError
            What its command raises.
        """
        done = self._doing(task)
        if task.step.words[0] in (*MAKING_RUNS, *ADDING):
            self._forget_readers(task.step)
        self.journal.note(task.step.name, done)
        return done

    def _forget_readers(self, changed: Step) -> None:
        """Have what is read off the runs, by later steps, be done again: they hold more now."""
        steps = self.steps()
        for step in steps[steps.index(changed) + 1 :]:
            if step.words[0] not in (*MAKING_RUNS, *ADDING):
                self.journal.done.pop(step.name, None)

    def _doing(self, task: Task) -> Done:
        """Do a step."""
        self.journal.prepare()  # the first step may already write a file
        before, files = self._snapshot(), files_below(self.folder)
        start = time.perf_counter()
        printed = io.StringIO()
        used = [path for path in _beside(task.step, task.words) if path.is_file()]
        try:
            if task.words[0] == PAGE:
                _, template, page = task.words
                used = write_page(Path(template), self.folder, self.folder / page)
            else:
                with redirect_stdout(printed):
                    words = ["--store", str(self.store), *task.words]
                    self.root.main(words, prog_name="moedb", standalone_mode=False)
        except click.ClickException as error:
            raise UsageError(error.format_message()) from error
        finally:
            sys.stdout.write(printed.getvalue())
            sys.stdout.flush()
        seconds = time.perf_counter() - start
        after = self._snapshot()
        if after is None:
            raise MoedbError(f"step {task.step.name} left no store at {self.store}")
        changed = {
            name: self.folder / name
            for name, told in files_below(self.folder).items()
            if files.get(name) != told
        }
        changed |= {os.path.relpath(path, self.folder): path for path in used}
        done = Done.of_step(task.words, seconds, before, after, printed.getvalue(), changed)
        if task.words[0] in MAKING_RUNS and not done.runs:
            raise MoedbError(f"step {task.step.name} made no run")
        return done

    def _values(self, runs: Mapping[str, str], step: Step) -> dict[str, str]:
        return {**self.settings, **runs, OUTPUT: str(self.folder), HERE: str(step.folder)}

    def _snapshot(self) -> "Snapshot | None":
        """The runs of the store; None where there is no store yet."""
        from moedb.store.reading.snapshot import take_snapshot

        try:
            return take_snapshot(self.store)
        except StoreNotFoundError:
            return None


def _beside(step: Step, words: list[str]) -> list[Path]:
    """What a step names beside the study's file."""
    named = zip(step.words, words, strict=True)
    found = [word for template, word in named if f"${{{HERE}}}" in template]
    # of --file=PATH the path
    return [Path(word.partition("=")[2] if word.startswith("-") else word) for word in found]
