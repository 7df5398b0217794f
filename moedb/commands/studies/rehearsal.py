"""What a study will take, from doing it twice at small sizes."""

import io
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from moedb.commands.studies.running import StudyRun
from moedb.errors import MoedbError

_WORTH = 3
"""How many times as much as a rehearsal does there has to be to do for it to be worth its while."""


@dataclass(frozen=True)
class Measured:
    """What a step took at one size: seconds, bytes that the store grew by, and tokens."""

    seconds: float
    n_bytes: int
    n_tokens: int


@dataclass(frozen=True)
class Estimate:
    """What a step will take; with None for what is not known, and why.

    Attributes
    ----------
    seconds, n_bytes, n_tokens
        Time, bytes that the store grows by, and tokens of captured examples.
    problem
        Why nothing is known of it.
    """

    seconds: float | None = None
    n_bytes: int | None = None
    n_tokens: int | None = None
    problem: str | None = None


def rehearse(planned: StudyRun) -> dict[str, Estimate]:
    """Do a study at two small sizes, in folders of its own, and extend a line through both.

    The first step is done once more before, so that what is loaded once is not counted.

    Parameters
    ----------
    planned
        The study as it is to be done.

    Returns
    -------
    dict
        An estimate for each step; empty where no setting says how much there is to do, or what is
        asked for is little more than the rehearsal would do.

    Raises
    ------
    MoedbError
        If the first step fails: then the study would.
    """
    size = planned.study.size
    if size is None or not planned.settings.get(size, "").isdecimal():
        return {}
    sizes = planned.study.settings[size].rehearsed
    if sizes is None:
        return {}
    small, large = sizes
    whole = int(planned.settings[size])
    if whole < _WORTH * large:
        return {}
    _rehearsed(planned, {size: str(small)}, only_first=True)
    found = [(n, _rehearsed(planned, {size: str(n)})) for n in (small, large)]
    return {step.name: _extended(step.name, found, whole) for step in planned.steps()}


def _extended(
    name: str, found: "list[tuple[int, dict[str, Measured | str]]]", whole: int
) -> Estimate:
    """A step's estimate for the whole."""
    (n, at_small), (m, at_large) = ((size, steps.get(name, "not reached")) for size, steps in found)
    if isinstance(at_small, str) or isinstance(at_large, str):
        return Estimate(problem=at_large if isinstance(at_large, str) else str(at_small))

    def line(one: float, other: float) -> float:
        slope = max(0.0, (other - one) / (m - n))
        return max(0.0, other - slope * m) + slope * whole

    return Estimate(
        line(at_small.seconds, at_large.seconds),
        round(line(at_small.n_bytes, at_large.n_bytes)),
        round(line(at_small.n_tokens, at_large.n_tokens)),
    )


def _rehearsed(
    planned: StudyRun, sizes: dict[str, str], only_first: bool = False
) -> "dict[str, Measured | str]":
    """What each step took, or why it failed."""
    found: dict[str, Measured | str] = {}
    # what the steps say is kept from the terminal
    with (
        TemporaryDirectory(prefix="moedb-rehearsal-") as place,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        settings = {**planned.settings, **sizes}
        folder = Path(place)
        run = StudyRun(planned.study, settings, planned.root, folder / "store", folder / "files")
        while True:
            task = next(
                (t for t in run.tasks() if not t.is_done and t.step.name not in found), None
            )
            if task is None:
                return found
            lacking = [name for name, each in found.items() if isinstance(each, str)]
            missing = next((name for name in lacking if f"<{name}>" in " ".join(task.words)), None)
            if missing is not None:
                found[task.step.name] = f"it needs {missing}"
                continue
            before = _held(run.store)
            start = time.perf_counter()
            try:
                run.do_task(task)
            except MoedbError as error:
                if not found:
                    raise
                found[task.step.name] = error.message
                continue
            seconds = time.perf_counter() - start
            now = _held(run.store)
            found[task.step.name] = Measured(seconds, now[0] - before[0], now[1] - before[1])
            if only_first:
                return found


def _held(store: Path) -> tuple[int, int]:
    """The bytes of a store's committed files, and the tokens of its examples."""
    from moedb.store.reading.snapshot import take_snapshot

    if not store.is_dir():
        return 0, 0
    runs = take_snapshot(store).runs.values()
    return sum(run.n_bytes() for run in runs), sum(run.n_rows("tokens") for run in runs)
