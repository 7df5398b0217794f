"""Time and memory of a case, each way of answering it in turn."""

import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import moedb
from benchmarks.queries.by_hand.run_files import RunFiles
from benchmarks.queries.cases import Case
from benchmarks.queries.synthetic.stores import Written

MOEDB, OPEN, NUMPY, POLARS = "moedb", "moedb, open", "numpy", "polars"
HAS_POLARS = find_spec("polars") is not None

SUMS = ("weight", "weight_share")
"""Columns that add up float32 weights."""


@dataclass(frozen=True)
class Measured:
    """One way of answering a case.

    Attributes
    ----------
    seconds, cpu_seconds
        Of each repeat, by the clock and of all cores together.
    peak_bytes
        What a process of its own had resident at most; None where the system does not say.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def best(self) -> float:
        """The fastest repeat."""
        return min(self.seconds)


@dataclass(frozen=True)
class Effort:
    """How a case is measured.

    Attributes
    ----------
    repeat
        Rounds, after one to warm up whose answers are compared.
    slow
        A way whose first round takes longer than this, in seconds, is not repeated: that round is
        its time. Where moedb does, an open database is not asked.
    memory
        Whether memory is measured too, each way in a process of its own.
    polars
        Whether polars is one of the ways.
    """

    repeat: int = 3
    slow: float = 30.0
    memory: bool = True
    polars: bool = HAS_POLARS


def ways(case: Case, written: Written, polars: bool = HAS_POLARS) -> dict[str, Callable[[], Any]]:
    """The ways of answering a case, each a function that returns its columns.

    Those by hand read units, so a run that was compacted is soon asked by moedb alone.
    """
    found: dict[str, Callable[[], Any]] = {MOEDB: partial(ask_anew, case, written)}
    run = getattr(written, case.run, "")
    if case.by_hand is not None and RunFiles(written.folder / "runs" / run).has_units:
        found[NUMPY] = partial(ask_by_hand, "in_numpy", case, written)
        if polars:
            found[POLARS] = partial(ask_by_hand, "in_polars", case, written)
    return found


def ask_anew(case: Case, written: Written) -> pd.DataFrame:
    """Open the store and ask, as a notebook's first call does: nothing is kept from before."""
    with moedb.open(_store(case, written)) as database:
        return ask(case, written, database)


def _store(case: Case, written: Written) -> Path:
    return written.trials if case.run == "trials" else written.folder


def ask(case: Case, written: Written, database: moedb.Database) -> pd.DataFrame:
    """Ask, and fetch the rows."""
    given = dict(case.parameters)
    if case.run != "trials":
        given["run"] = getattr(written, case.run)
    if case.query == "saturation":
        given["run_b"] = written.earlier
    return database.query(case.query, **given).df()


def ask_by_hand(module: str, case: Case, written: Written) -> dict[str, Any]:
    """Answer from the Parquet files, without moedb."""
    assert case.by_hand is not None
    answer = getattr(import_module(f"benchmarks.queries.by_hand.{module}"), case.by_hand)
    runs = written.folder / "runs"
    given = dict(case.hand_parameters)
    if case.query == "saturation":
        given["run_b"] = RunFiles(runs / written.earlier)
    found: dict[str, Any] = answer(RunFiles(runs / getattr(written, case.run)), **given)
    return found


def check_same(case: Case, ours: pd.DataFrame, theirs: dict[str, Any], way: str) -> None:
    """Check that two answers are the same, cell by cell.

    Raises
    ------
    AssertionError
        If they are not; a baseline that answers another question is none.
    """
    if set(theirs) != set(ours.columns):
        raise AssertionError(f"{case.name}, {way}: columns {sorted(theirs)}, not {list(ours)}")
    for name in ours.columns:
        a, b = ours[name].to_numpy(), np.asarray(theirs[name])
        if len(a) != len(b):
            raise AssertionError(f"{case.name}, {way}: {len(b)} rows, not {len(a)}")
        if a.dtype.kind == "f":
            loose = name in SUMS
            same = np.isclose(
                b.astype(float), a, rtol=1e-6 if loose else 1e-9, atol=1e-12, equal_nan=True
            )
        elif a.dtype.kind in "iu":
            same = a == b
        else:
            same = np.array([x == y for x, y in zip(a.tolist(), b.tolist(), strict=True)], bool)
        if not same.all():
            at = int(np.argmin(same))
            raise AssertionError(
                f"{case.name}, {way}: {name} of row {at} is {b[at]!r}, not {a[at]!r}"
            )


def measure(case: Case, written: Written, effort: Effort) -> tuple[int, dict[str, Measured]]:
    """Measure every way of a case, one after the other in each round.

    Returns
    -------
    n_rows, measured
        Rows of the answer, and the ways.
    """
    answers = ways(case, written, effort.polars)
    with moedb.open(_store(case, written)) as database:
        timed = {**answers, OPEN: partial(ask, case, written, database)}
        found = {way: Measured() for way in timed}
        reference = pd.DataFrame()
        for way, answer in timed.items():
            if way == OPEN and found[MOEDB].seconds[0] > effort.slow:
                del found[OPEN]
                break
            result = _time(answer, found[way])
            if way == MOEDB:
                reference = result
            elif way != OPEN:
                check_same(case, reference, result, way)
        pending = {way: timed[way] for way in found if found[way].seconds[0] <= effort.slow}
        for way in pending:
            found[way].seconds.clear()
            found[way].cpu_seconds.clear()
        for _ in range(effort.repeat):
            for way, answer in pending.items():
                _time(answer, found[way])
    if effort.memory:
        for way in answers:
            found[way] = replace(found[way], peak_bytes=_peak(way, case, written))
    return len(reference), found


def _time(answer: Callable[[], Any], measured: Measured) -> Any:
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    result = answer()
    measured.seconds.append(time.perf_counter() - start)
    measured.cpu_seconds.append(time.process_time() - cpu)
    return result


def _peak(way: str, case: Case, written: Written) -> int | None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, way, case, written).result()


def _peak_here(way: str, case: Case, written: Written) -> int | None:
    """Answer, and say what this process, Python and libraries included, had resident at most."""
    ways(case, written)[way]()
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(peak)
