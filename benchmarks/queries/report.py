"""What was measured, as Markdown tables and as JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.queries.measuring import HAS_POLARS, MOEDB, NUMPY, OPEN, POLARS, Measured
from benchmarks.queries.synthetic.stores import Written
from moedb.schemas.version import __version__


@dataclass(frozen=True)
class Answered:
    """A case that was measured: its name, the rows of its answer, the ways."""

    name: str
    n_rows: int
    ways: dict[str, Measured]


@dataclass(frozen=True)
class StoreReport:
    """The cases of one store."""

    written: Written
    answered: list[Answered]

    @property
    def size(self) -> str:
        """Its decisions, in words."""
        return f"{self.written.n_decisions / 1e6:.3g}M"

    def of(self, name: str) -> Answered | None:
        """The case of a name."""
        return next((case for case in self.answered if case.name == name), None)


def machine() -> dict[str, str]:
    """What it ran on."""
    names = ("duckdb", "numpy", "pyarrow", *(("polars",) if HAS_POLARS else ()))
    memory = psutil.virtual_memory().total / 1e9
    return {
        "cpu": _cpu(),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory": f"{memory:.0f} GB",
        "python": platform.python_version(),
        "moedb": __version__,
        **{name: version(name) for name in names},
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_line(found: Mapping[str, str]) -> str:
    """The machine, in a line."""
    cpu, cores, memory, *versions = found.items()
    parts = [cpu[1], f"{cores[1]} cores", memory[1]]
    return ", ".join(parts + [f"{name} {value}" for name, value in versions])


def table(report: StoreReport) -> str:
    """The cases of a store: seconds of each way, and what moedb takes of the faster one by hand."""
    header = (
        *("query", "rows", "moedb s", "open s", "numpy s", "polars s", "ratio"),
        *("moedb GB", "numpy GB", "polars GB"),
    )
    rows = []
    for case in report.answered:
        ways = case.ways
        hand = [ways[way].best for way in (NUMPY, POLARS) if way in ways]
        ratio = f"{ways[MOEDB].best / min(hand):.2f}" if hand else ""
        seconds = [_seconds(ways.get(way)) for way in (MOEDB, OPEN, NUMPY, POLARS)]
        peaks = [_gigabytes(ways.get(way)) for way in (MOEDB, NUMPY, POLARS)]
        rows.append((case.name, f"{case.n_rows:,}", *seconds, ratio, *peaks))
    return _markdown(header, rows)


def growth(reports: Sequence[StoreReport]) -> str:
    """moedb's seconds from size to size, and how often those of the size before."""
    header = ["query", f"{reports[0].size} s"]
    for report in reports[1:]:
        header += [f"{report.size} s", "times"]
    rows = []
    for case in reports[0].answered:
        best = case.ways[MOEDB].best
        row = [case.name, f"{best:.3f}"]
        for report in reports[1:]:
            found = report.of(case.name)
            if found is None:
                row += ["", ""]
                continue
            following = found.ways[MOEDB].best
            row += [f"{following:.3f}", f"{following / best:.1f}"]
            best = following
        rows.append(row)
    return _markdown(header, rows)


def _seconds(measured: Measured | None) -> str:
    return "" if measured is None else f"{measured.best:.3f}"


def _gigabytes(measured: Measured | None) -> str:
    if measured is None or measured.peak_bytes is None:
        return ""
    return f"{measured.peak_bytes / 1e9:.2f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(found: Mapping[str, str], reports: Sequence[StoreReport]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": dict(found),
        "stores": [
            {
                "n_decisions": report.written.n_decisions,
                "n_tokens": report.written.n_tokens,
                "cases": [asdict(case) for case in report.answered],
            }
            for report in reports
        ],
    }
