"""Progress on stderr: bars on a terminal or in a notebook, elsewhere a line now and then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from moedb.queries.results.visible import visible, visible_lines

QUIET_SECONDS = 30.0
"""How long nothing is said where no bar is shown."""


class Heartbeat:
    """Says from time to time how far something is, on a thread of its own.

    Parameters
    ----------
    say
        Writes a line.
    state
        Returns it.
    seconds
        How long nothing is said.
    """

    def __init__(
        self, say: Callable[[str], None], state: Callable[[], str], seconds: float | None = None
    ) -> None:
        self._say, self._state = say, state
        self._seconds = QUIET_SECONDS if seconds is None else seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moedb-progress", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is said from now on."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._seconds):
            self._say(self._state())


def how_far(what: str, done: int, total: int, seconds: float, begun_with: int = 0) -> str:
    """Say how far something is: how much is done, how fast, and how long the rest will take.

    Parameters
    ----------
    what
        What is counted, in the plural.
    done, total
        How much is done, and how much there is.
    seconds
        How long it has run.
    begun_with
        How much was done before that.

    Examples
    --------
    >>> how_far("tokens", 30_000, 90_000, 60.0)
    '30,000 of 90,000 tokens (33 %), 500/s, about 2 min left'
    >>> how_far("tokens", 0, 90_000, 60.0)
    '0 of 90,000 tokens (0 %)'
    """
    share = done / total if total else 1.0
    line = f"{done:,} of {total:,} {what} ({100 * share:.0f} %)"
    speed = (done - begun_with) / seconds if seconds > 0 else 0.0
    if speed <= 0:
        return line
    left = (total - done) / speed
    spoken = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    rate = f"{speed:,.0f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"
    return f"{line}, {rate}, about {spoken} left"


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _shows_bars(console: Console) -> bool:
    # without ipywidgets a bar in a notebook is a warning each time that it moves
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def _begin(bar: Progress, heartbeat: Heartbeat) -> None:
    """Show a bar, or say now and then how far it would be."""
    if bar.disable:
        heartbeat.start()
    else:
        bar.start()


def _end(bar: Progress, heartbeat: Heartbeat) -> None:
    # the end of a bar that is not shown is an empty line in older versions of rich
    if bar.disable:
        heartbeat.stop()
    else:
        bar.stop()


class _Shown:
    """What is shown as a bar, or as a line now and then, within its context."""

    _bar: Progress
    _heartbeat: Heartbeat

    def __enter__(self) -> Self:
        _begin(self._bar, self._heartbeat)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _end(self._bar, self._heartbeat)


@contextmanager
def analysis_progress(what: str, n_parts: int) -> Iterator[Callable[[], None]]:
    """Show how many parts of an analysis are done; yields what is called after each."""
    console = _console()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not _shows_bars(console),
        transient=True,
    )
    task = bar.add_task(what, total=n_parts)
    started = time.monotonic()

    def state() -> str:
        return how_far(what, int(bar.tasks[0].completed), n_parts, time.monotonic() - started)

    heartbeat = Heartbeat(lambda line: console.print(line, markup=False), state)
    _begin(bar, heartbeat)
    try:
        yield lambda: bar.advance(task)
    finally:
        _end(bar, heartbeat)


class RichProgress(_Shown):
    """Shows a bar where stderr is a terminal, else a line every half minute, and all notes."""

    def __init__(self) -> None:
        self._console = _console()
        self._total, self._done, self._begun_with = 0, 0, 0
        self._started: float | None = None
        self._heartbeat = Heartbeat(self.note, self._state)
        self._bar = Progress(
            TextColumn("tokens"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not _shows_bars(self._console),
        )
        self._task = self._bar.add_task("tokens", total=None, rate="", start=False)

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.print(visible_lines(text), markup=False)

    def begin(self, n_tokens: int, done: int) -> None:
        """Start the bar; what was committed earlier counts as done."""
        self._total, self._done, self._begun_with = n_tokens, done, done
        self._started = time.monotonic()
        self._bar.update(self._task, total=n_tokens, completed=done)
        self._bar.start_task(self._task)

    def advance(self, n_tokens: int) -> None:
        """Move the bar on."""
        self._done += n_tokens
        self._bar.advance(self._task, n_tokens)
        speed = self._bar.tasks[0].speed
        if speed:
            self._bar.update(self._task, rate=f"{speed:,.0f}/s")

    def _state(self) -> str:
        if self._started is None:
            return "the model is made ready"
        seconds = time.monotonic() - self._started
        return how_far("tokens", self._done, self._total, seconds, self._begun_with)


class TrainingBar(_Shown):
    """Shows a bar where stderr is a terminal, else a line every half minute; and each epoch."""

    def __init__(self) -> None:
        self._console = _console()
        self._name, self._state_of = "", "the images are read"
        self._heartbeat = Heartbeat(self._write, lambda: self._state_of)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not _shows_bars(self._console),
        )
        self._task: TaskID | None = None

    def begin(self, name: str, n_images: int, done: int) -> None:
        """Start the bar of a trial; what was trained on earlier counts as done."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(visible(name), total=n_images, completed=done, figures="")
        self._name, self._total, self._done, self._begun_with = name, n_images, done, done
        self._started = time.monotonic()
        if done:
            self._write(f"{name}: continues at image {done:,} of {n_images:,}")

    def advance(self, n_images: int, loss: float) -> None:
        """Move the bar on."""
        if self._task is not None:
            speed = self._bar.tasks[-1].speed
            figures = f"loss {loss:.3f}" + (f", {speed:,.0f} images/s" if speed else "")
            self._bar.update(self._task, advance=n_images, figures=figures)
            self._done += n_images
            seconds = time.monotonic() - self._started
            far = how_far("images", self._done, self._total, seconds, self._begun_with)
            self._state_of = f"{self._name}: {far}, loss {loss:.3f}"

    def epoch(self, name: str, line: dict[str, Any]) -> None:
        """Write how an epoch ended."""
        shares = line.get("expert_shares")
        parts = [f"{name}: epoch {line['epoch']}, loss {line['train_loss']:.3f}"]
        if shares is not None:
            parts.append(f"validation accuracy {line['validation_accuracy']:.1%}")
            parts.append("experts " + " ".join(f"{share:.0%}" for share in shares))
        self._write(", ".join(parts))

    def _write(self, line: str) -> None:
        self._console.print(visible(line), markup=False)


class FilesProgress(_Shown):
    """Shows how far a run's files are, as a bar or a line now and then, and all notes.

    Parameters
    ----------
    what
        What is done to them, such as ``copying``.
    """

    def __init__(self, what: str) -> None:
        self._console = _console()
        self._started = time.monotonic()
        self._total, self._done = 0, 0
        self._lock = threading.Lock()
        self._heartbeat = Heartbeat(self.note, self._state)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not _shows_bars(self._console),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=None)

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.print(visible_lines(text), markup=False)

    def begin(self, n_files: int, n_bytes: int) -> None:
        """Start the bar of a run."""
        with self._lock:
            self._total, self._done, self._started = n_bytes, 0, time.monotonic()
        self._bar.reset(self._task, total=n_bytes, description=f"{n_files:,} files")

    def advance(self, n_bytes: int) -> None:
        """Move the bar on."""
        with self._lock:
            self._done += n_bytes
        self._bar.advance(self._task, n_bytes)

    def _state(self) -> str:
        seconds = time.monotonic() - self._started
        return how_far("MB", self._done // 10**6, self._total // 10**6, seconds)
