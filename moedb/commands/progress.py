"""Progress on the terminal: bars of captures and of trainings, on stderr."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from moedb.queries.results.visible import visible, visible_lines


class RichProgress:
    """Shows a bar where stderr is a terminal; notes are written in any case."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("tokens"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("tokens", total=None, rate="", start=False)

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.print(visible_lines(text), markup=False)

    def begin(self, n_tokens: int, done: int) -> None:
        """Start the bar; what was committed earlier counts as done."""
        self._bar.update(self._task, total=n_tokens, completed=done)
        self._bar.start_task(self._task)

    def advance(self, n_tokens: int) -> None:
        """Move the bar on."""
        self._bar.advance(self._task, n_tokens)
        speed = self._bar.tasks[0].speed
        if speed:
            self._bar.update(self._task, rate=f"{speed:,.0f}/s")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


class TrainingBar:
    """Shows a bar where stderr is a terminal; lines are written in any case."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def begin(self, name: str, n_images: int, done: int) -> None:
        """Start the bar of a trial; what was trained on earlier counts as done."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(visible(name), total=n_images, completed=done, figures="")
        if done:
            self._write(f"{name}: continues at image {done:,} of {n_images:,}")

    def advance(self, n_images: int, loss: float) -> None:
        """Move the bar on."""
        if self._task is not None:
            speed = self._bar.tasks[-1].speed
            figures = f"loss {loss:.3f}" + (f", {speed:,.0f} images/s" if speed else "")
            self._bar.update(self._task, advance=n_images, figures=figures)

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

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
