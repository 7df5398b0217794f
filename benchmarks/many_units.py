"""A run of many units: opening it, committing to it, compacting it.

Makes a run whose units are small files of nine tables, as many as asked for, without capturing
anything. Prints seconds and memory; opening and asking run in processes of their own.

    python benchmarks/many_units.py FOLDER [--units 10000]
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from moedb.schemas.manifests import RunManifest, SegmentManifest, UnitRange
from moedb.schemas.tables import table
from moedb.store.files import sha256_of_text
from moedb.store.layout import unit_name
from moedb.store.reading.snapshot import read_run
from moedb.store.writing.complete.compaction import compact_run
from moedb.store.writing.open_run import timestamp
from moedb.store.writing.run_writer import RunWriter

RUN_ID = "text-many"
TOKENS, EXPERTS, TOP_K = 16, 4, 2
NAMES = (
    "examples",
    "example_labels",
    "tokens",
    "token_labels",
    "routing",
    "router_stats",
    "router_mass",
    "predictions",
    "logit_lens",
)


def manifest(n_units: int) -> RunManifest:
    """A run of ``n_units`` units of one example each."""
    row = {
        **{c.name: 0 if c.type.startswith("int") else "x" for c in table("runs").columns},
        "n_examples": n_units,
        "n_tokens": n_units * TOKENS,
        "dtype": "bfloat16",
        "parent_run_id": None,
        "created_at": timestamp(),
        "config": "{}",
        "versions": "{}",
    }
    layer = {
        **{c.name: 0 if c.type.startswith("int") else "x" for c in table("moe_layers").columns},
        "layer": 0,
        "n_experts": EXPERTS,
        "top_k": TOP_K,
        "scoring": "softmax",
    }
    units = tuple(UnitRange(unit, unit + 1, TOKENS, 0) for unit in range(n_units))
    return RunManifest(RUN_ID, row, 1024, units, (layer,), {})


def unit_columns(unit: int) -> dict[str, dict[str, object]]:
    """A unit's rows: values that do not matter, in every column."""
    lengths = {"routing": TOKENS * TOP_K, "tokens": TOKENS, "router_stats": TOKENS}
    found: dict[str, dict[str, object]] = {}
    for name in NAMES:
        n = lengths.get(name, EXPERTS if name == "router_mass" else 1)
        columns: dict[str, object] = {}
        for column in table(name).columns[1:]:
            if column.type == "string":
                columns[column.name] = ["x"] * n
            elif column.name == "token_idx":
                columns[column.name] = unit * TOKENS + np.arange(n) * TOKENS // n
            elif column.name == "example_id":
                columns[column.name] = np.full(n, unit)
            else:
                columns[column.name] = np.arange(n) % (TOP_K if column.name == "rank" else EXPERTS)
        found[name] = columns
    return found


def fabricate(writer: RunWriter, n_units: int) -> None:
    """Commit units by copies of the first one's files, and nothing synced."""
    layout = writer.layout
    first = read_run(layout.store, RUN_ID).segments[unit_name(0)]
    content = {
        name: (layout.folder / entries[0].path).read_bytes()
        for name, entries in first.tables.items()
    }
    for unit in range(1, n_units):
        tables = {}
        for name, (entry,) in first.tables.items():
            path = f"tables/{name}/{unit_name(unit)}-{unit:08x}.parquet"
            (layout.folder / path).write_bytes(content[name])
            tables[name] = (entry._replace(path=path),)
        place = layout.segment(unit_name(unit))
        segment = SegmentManifest(
            unit_name(unit),
            timestamp(),
            tables,
            (),
            RUN_ID,
            layout.relative(place),
            sha256_of_text(layout.manifest.read_text()) if unit == 1 else first.run_sha256,
        )
        place.write_text(segment.to_json())


def seconds_of(*arguments: str) -> str:
    """Run Python; return the seconds it took and the megabytes it held, best of three."""
    best = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        best.append((time.perf_counter() - start, done.stdout.split()[-1]))
    return f"{min(best)[0]:.2f} s {min(best)[1]}"


OPEN = """
import resource, sys, time
from pathlib import Path
from moedb.store.reading.snapshot import take_snapshot
start = time.perf_counter()
take_snapshot(Path(sys.argv[1]))
took = time.perf_counter() - start
print(f"(snapshot:{took:.2f}s,{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3:.0f}MB)")
"""
SQL = "from moedb.cli import main; main()"


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--units", type=int, default=10_000)
    arguments = parser.parse_args()
    store, n_units = arguments.folder / "store", arguments.units
    shutil.rmtree(store, ignore_errors=True)
    writer = RunWriter(store, manifest(n_units))
    writer.begin({})

    def commits(first: int) -> str:
        times = []
        for unit in range(first, first + 10):
            start = time.perf_counter()
            assert writer.commit_unit(unit, unit_columns(unit), {})
            times.append(time.perf_counter() - start)
        return f"{np.median(times) * 1000:.1f} ms, median of 10"

    print(f"commit beside 0 units: {commits(0)}", flush=True)
    for path in writer.layout.segments.glob("00000[1-9].json"):
        path.unlink()
    fabricate(writer, n_units - 10)
    print(f"commit beside {n_units - 10:,} units: {commits(n_units - 10)}", flush=True)

    def opening(what: str) -> None:
        print(f"{what}: opened in {seconds_of('-c', OPEN, str(store))}", flush=True)
        asked = seconds_of("-c", SQL, "sql", "select 1", "--store", str(store), "--format", "csv")
        print(f"{what}: moedb sql 'select 1' in {asked}", flush=True)

    opening("incomplete")
    start = time.perf_counter()
    from moedb.store.writing import run_writer

    run_writer.UNITS_AT_END = n_units
    writer.finish()
    print(f"finished in {time.perf_counter() - start:.1f} s", flush=True)
    opening("complete")
    start = time.perf_counter()
    print(compact_run(store, RUN_ID))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"compacted in {time.perf_counter() - start:.1f} s, peak {peak:.0f} MB", flush=True)
    opening("compacted")


if __name__ == "__main__":
    main()
