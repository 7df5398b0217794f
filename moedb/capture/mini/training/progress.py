"""How training goes: figures of the last steps, and a bar that shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass
class Meter:
    """Sums since the last log line."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    lm: float = 0.0
    aux: float = 0.0
    ioi: float = 0.0

    def line(self) -> dict[str, float]:
        """Return the means over the steps, and the speed."""
        n = max(1, self.steps)
        return {
            "lm_loss": self.lm / n,
            "aux_loss": self.aux / n,
            "ioi_loss": self.ioi / n,
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
        }


@contextmanager
def show_progress(total: int, completed: int) -> Iterator[Any]:
    """Yield a function that shows a step on stderr, where stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, line: None
        return
    columns = (
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=total, completed=completed, figures="")

        def show(step: int, line: dict[str, float]) -> None:
            figures = (
                f"lm {line['lm_loss']:.3f} aux {line['aux_loss']:.3f} "
                f"ioi {line['ioi_loss']:.3f} {line['tokens_per_second']:.0f} tokens/s"
            )
            progress.update(task, completed=step, figures=figures)

        yield show
