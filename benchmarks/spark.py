"""Time named queries on Spark beside DuckDB, each in a process of its own, over a stored run.

Opening the store, the query and its rows as Arrow count; Spark's start is timed apart. A process is
asked twice, through a newly opened database each: the second time Java has compiled what it runs.
The answers have to be equal, doubles within 1e-9.

    python -m benchmarks.queries --decisions 48M --write-only --store /tmp/stores
    python benchmarks/spark.py /tmp/stores/48m text-bcadfb49f7 --master 'local[2]'
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

import moedb

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("expert-frequency", {}),
    ("routing-by-class", {"key": "domain"}),
    ("cross-layer", {}),
    ("co-activation", {}),
]


def ask(store: str, run: str, master: str | None, number: int, answer: str) -> None:
    """Ask one question twice; print the seconds as JSON, and write the answer."""
    name, given = QUESTIONS[number]
    settings = None if master is None else moedb.SparkSettings(master)
    start = time.perf_counter()
    if settings is not None:
        with moedb.open(store, spark=settings) as database:
            database.sql("select count(*) from moe_layers").fetchall()
    seconds = {"start": time.perf_counter() - start}
    for time_of in ("first", "second"):
        start = time.perf_counter()
        with moedb.open(store, spark=settings) as database:
            rows = database.query(name, run=run, **given).arrow()
        seconds[time_of] = time.perf_counter() - start
    with pa.OSFile(answer, "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)
    print(json.dumps(seconds))


def asked(arguments: list[str], master: str | None, number: int) -> tuple[dict[str, float], str]:
    """What a process of its own took, and the file of its answer."""
    answer = f"{'duckdb' if master is None else 'spark'}-{number}.arrow"
    chosen = [] if master is None else ["--master", master]
    command = [sys.executable, __file__, *arguments, *chosen, "--ask", str(number), answer]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), answer


def check(name: str, found: str, expected: str) -> int:
    """Hold one answer against the other; return the number of rows."""
    tables = [pa.ipc.open_file(file).read_all() for file in (found, expected)]
    assert tables[0].schema == tables[1].schema, name
    for column in tables[0].column_names:
        one, other = (table[column].to_numpy() for table in tables)
        if one.dtype == np.float64:
            np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=f"{name} {column}")
        else:
            assert (one == other).all(), (name, column)
    return int(tables[0].num_rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("run")
    parser.add_argument("--master", default=None)
    parser.add_argument("--only", nargs="+", metavar="QUERY", help="only these of the queries")
    parser.add_argument("--ask", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask is not None:
        ask(given.store, given.run, given.master, int(given.ask[0]), given.ask[1])
        return
    print("| query | rows | DuckDB s | Spark s | again | Spark's start |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for number, (name, _) in enumerate(QUESTIONS):
        if given.only is not None and name not in given.only:
            continue
        plain, expected = asked([given.store, given.run], None, number)
        spark, found = asked([given.store, given.run], given.master or "local[*]", number)
        cells = f"{check(name, found, expected):,} | {plain['first']:.2f} | {spark['first']:.1f}"
        print(f"| {name} | {cells} | {spark['second']:.1f} | {spark['start']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
