"""Time every named query over a synthetic store, beside numpy and polars written by hand.

The main time is that of a notebook's first call: moedb.open, query, rows as a data frame; "open"
is a database that has been open, and asked the same, before. All ways run in turn in one process,
after a round whose answers must be equal cell by cell; the best of the rounds counts. Peak memory
is that of a process of its own, Python and libraries included.

    python -m benchmarks.queries --decisions 4M 48M --store /tmp/stores --json queries.json
"""

import argparse
import json
import re
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from benchmarks.queries import report
from benchmarks.queries.cases import CASES, Case, not_timed
from benchmarks.queries.measuring import HAS_POLARS, MOEDB, Effort, measure
from benchmarks.queries.report import Answered, StoreReport
from benchmarks.queries.synthetic.settings import Settings
from benchmarks.queries.synthetic.stores import Written, write_store


def count(text: str) -> int:
    """A number such as 48M or 20k."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number such as 4M or 20k")
    return int(float(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]])


def parser() -> argparse.ArgumentParser:
    """The options."""
    known = argparse.ArgumentParser(
        prog="python -m benchmarks.queries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = known.add_mutually_exclusive_group()
    sizes.add_argument(
        "--decisions",
        type=count,
        nargs="+",
        default=[4_000_000],
        metavar="N",
        help="decisions of the run of documents, such as 4M 48M 480M; a store for each",
    )
    sizes.add_argument("--tokens", type=count, nargs="+", metavar="N", help="its tokens instead")
    known.add_argument("--layers", type=int, default=24, help="MoE layers (24)")
    known.add_argument("--experts", type=int, default=60, help="experts of a layer (60)")
    known.add_argument("--top-k", type=int, default=4, help="experts of a token (4)")
    known.add_argument("--document-tokens", type=int, default=512, help="mean of a document (512)")
    known.add_argument("--prompt-tokens", type=int, default=20, help="tokens of a prompt (20)")
    known.add_argument(
        "--runs",
        type=int,
        choices=(2, 3),
        default=2,
        help="2 (default): documents and prompts. 3: the documents through an earlier checkpoint "
        "too, which saturation compares with; without it the run is compared with itself",
    )
    known.add_argument(
        "--one-store",
        action="store_true",
        help="keep the runs that queries over trials read in the same store: their labels of runs "
        "are read by every query over labels",
    )
    known.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (0)")
    known.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep the stores in DIR, one folder for each size such as 48m, and use those that are "
        "there; a temporary folder without",
    )
    known.add_argument(
        "--only", nargs="+", metavar="NAME", help="only cases whose name begins with one of these"
    )
    known.add_argument("--repeat", type=int, default=3, help="rounds, the best of which counts (3)")
    known.add_argument(
        "--slow",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="a way that takes longer in its first round is not repeated (30); where moedb does, "
        "an open database is not asked",
    )
    known.add_argument(
        "--no-polars", action="store_true", help="leave out polars, which takes the most memory"
    )
    known.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    known.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    known.add_argument("--write-only", action="store_true", help="write the stores and stop")
    return known


def main() -> None:
    """Write, time, print."""
    options = parser().parse_args()
    cases = [
        case
        for case in CASES
        if options.only is None or any(case.name.startswith(name) for name in options.only)
    ]
    if not cases:
        names = ", ".join(dict.fromkeys(case.query for case in CASES))
        raise SystemExit(f"--only {' '.join(options.only)}: no such case; there are {names}")
    of_token = options.layers * options.top_k
    sizes = options.tokens or [max(1, n // of_token) for n in options.decisions]
    machine = report.machine()
    print(report.machine_line(machine), flush=True)
    if not HAS_POLARS and not options.no_polars:
        print("polars is not installed: pip install -c constraints.txt -e '.[benchmarks]'")
    effort = Effort(
        repeat=options.repeat,
        slow=options.slow,
        memory=not options.no_memory,
        polars=HAS_POLARS and not options.no_polars,
    )
    reports: list[StoreReport] = []
    temporary = (
        tempfile.TemporaryDirectory() if options.store is None else nullcontext(options.store)
    )
    with temporary as folder:
        for tokens in sizes:
            written = _written(Path(folder), options, tokens)
            if options.write_only:
                continue
            reports.append(StoreReport(written, []))
            for case in cases:
                reports[-1].answered.append(_measured(case, written, effort))
                if options.json is not None:
                    content = json.dumps(report.as_json(machine, reports), indent=1)
                    options.json.write_text(content + "\n", encoding="utf-8")
            print("\n" + report.table(reports[-1]), flush=True)
    if len(reports) > 1:
        print("\n" + report.growth(reports))
    if not options.write_only and options.only is None:
        print(
            f"\nNot timed, as the stores have no arrays or interventions: {', '.join(not_timed())}"
        )


def _written(folder: Path, options: argparse.Namespace, tokens: int) -> Written:
    try:
        documents = Settings(
            job="text",
            tokens=tokens,
            example_tokens=options.document_tokens,
            layers=options.layers,
            experts=options.experts,
            top_k=options.top_k,
            seed=options.seed,
        )
    except ValueError as error:
        raise SystemExit(str(error)) from error
    n_decisions = tokens * options.layers * options.top_k
    start = time.perf_counter()
    name = f"{n_decisions / 1e6:.3g}m{'-one-store' if options.one_store else ''}"
    written = write_store(
        folder / name, documents, options.prompt_tokens, options.runs, options.one_store
    )
    seconds = time.perf_counter() - start
    print(f"\n{folder / name}: {n_decisions:,} decisions, ready after {seconds:.0f} s", flush=True)
    return written


def _measured(case: Case, written: Written, effort: Effort) -> Answered:
    n_rows, ways = measure(case, written, effort)
    print(f"  {case.name}: {ways[MOEDB].best:.3f} s", flush=True)
    return Answered(case.name, n_rows, ways)


if __name__ == "__main__":
    main()
