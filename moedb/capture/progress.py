"""Progress on the terminal: a bar with tokens a second and time left, on stderr."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moedb.visible import visible_lines


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
