"""Which order of rows, and how many rows to a group: size and time of the table ``routing``.

Writes the same decisions in several layouts and times three questions on each, in turn, so that a
slow moment of the machine hits all alike. Prints medians, and each relative to the layout in use.

    python benchmarks/layout.py [--tokens 200000] [--repeats 5]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moedb.schemas.tables import ROUTING
from moedb.store.writing.tables.parquet import (
    COMPRESSION,
    COMPRESSION_LEVEL,
    ROW_GROUP_ROWS,
    arrow_table,
)

LAYERS, EXPERTS, TOP_K = 24, 60, 4
QUESTIONS = {
    "frequency": "select layer, expert, count(*), sum(weight) from t group by layer, expert",
    "one layer": "select expert, count(*) from t where layer = 11 group by expert",
    "one token": "select layer, rank, expert from t where token_idx = 31415",
}


def decisions(n_tokens: int) -> pa.Table:
    """Routing as a model makes it: each token id prefers some experts, with noise."""
    rng = np.random.default_rng(0)
    ids = rng.zipf(1.3, n_tokens) % 5000
    taste = rng.gumbel(size=(LAYERS, 5000, EXPERTS)).astype(np.float32)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ROUTING.column_names[1:]}
    for layer in range(LAYERS):
        logits = taste[layer, ids] + rng.normal(0, 0.7, (n_tokens, EXPERTS)).astype(np.float32)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        experts = np.argsort(-p, axis=1)[:, :TOP_K]
        columns["token_idx"].append(np.repeat(np.arange(n_tokens), TOP_K))
        columns["layer"].append(np.full(n_tokens * TOP_K, layer))
        columns["rank"].append(np.tile(np.arange(TOP_K), n_tokens))
        columns["expert"].append(experts.ravel())
        columns["weight"].append(np.take_along_axis(p, experts, axis=1).ravel())
        columns["output_norm"].append(rng.gamma(9, 0.3, n_tokens * TOP_K).astype(np.float32))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return arrow_table(ROUTING, "text-0123456789", joined)


def main() -> None:
    """Write, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rows = decisions(arguments.tokens)
    orders = {
        "layer, token, rank": ["layer", "token_idx", "rank"],
        "token, layer, rank": ["token_idx", "layer", "rank"],
        "layer, expert, token": ["layer", "expert", "token_idx"],
    }
    layouts = [(order, ROW_GROUP_ROWS, True) for order in orders]
    layouts += [("layer, token, rank", size, True) for size in (65_536, 1_048_576)]
    layouts += [("layer, token, rank", ROW_GROUP_ROWS, False)]
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for order, size, split in layouts:
            keys = [(name, "ascending") for name in orders[order]]
            path = Path(folder) / f"{len(paths)}.parquet"
            floats = ["weight", "output_norm"]
            pq.write_table(
                rows.take(pc.sort_indices(rows, sort_keys=keys)),
                path,
                compression=COMPRESSION,
                compression_level=COMPRESSION_LEVEL,
                row_group_size=size,
                use_dictionary=[n for n in rows.column_names if n not in floats],
                use_byte_stream_split=floats if split else False,
            )
            paths[order, size, split] = path
        connection = duckdb.connect()
        times: dict[tuple[object, str], list[float]] = {}
        for repeat in range(arguments.repeats + 1):
            for layout, path in paths.items():
                for question, sql in QUESTIONS.items():
                    start = time.perf_counter()
                    connection.execute(sql.replace("from t", f"from '{path}'")).fetchall()
                    if repeat:
                        times.setdefault((layout, question), []).append(time.perf_counter() - start)
        used = ("layer, token, rank", ROW_GROUP_ROWS, True)
        print(f"{len(rows):,} decisions, {arguments.repeats} repeats, median seconds (ratio)")
        header = f"{'order':22} {'rows/group':>10} {'split':>5} {'bytes/row':>10}"
        print(header + "".join(f"{question:>18}" for question in QUESTIONS))
        for layout, path in paths.items():
            order, size, split = layout
            line = f"{order:22} {size:10,} {'yes' if split else 'no':>5} "
            line += f"{path.stat().st_size / len(rows):10.2f}"
            for question in QUESTIONS:
                median = statistics.median(times[layout, question])
                ratio = median / statistics.median(times[used, question])
                line += f"{median:10.3f} ({ratio:4.2f})"
            print(line)


if __name__ == "__main__":
    main()
