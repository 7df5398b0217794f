"""How many experts of drawn clusters two runs choose alike."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer, over
from moedb.queries.counting.sharing import MATCHED, each_shared

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value


def saturation(side: "OfRun", values: "Mapping[str, Value]") -> "Answers":
    """Count the decisions that clusters share with another run."""
    import numpy as np

    run_b = side.reader.snapshot.run(str(values["run_b"]))
    matched, clusters = side.added(MATCHED, run_b=run_b.run_id)
    order = np.argsort(matched["token_idx"], kind="stable")
    clusters = clusters[order]
    n_tokens = np.bincount(clusters, minlength=side.n_drawn).astype(np.float64)
    shared: dict[int, NDArray[np.float64]] = {}
    told = partial(_by_cluster, clusters, side.n_drawn)
    with side.in_order():
        pairs = matched["token_idx"][order], matched["token_b"][order]
        for layer, counts in each_shared(side.run, run_b, *pairs, told):
            shared[layer] = shared.get(layer, 0) + counts

    def at_layer(given: "pa.Table", layer: int) -> Answer:
        top_k = float(given["top_k"][0].as_py())
        of_layer = shared.get(layer, np.zeros((2, side.n_drawn)))

        def ask(weights: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
            n = (weights @ n_tokens)[:, None]
            both, first = (weights @ of_layer.T).T
            return {
                "n_tokens": n,
                "saturation": over(both[:, None], top_k * n),
                "first_saturation": over(first[:, None], n),
            }

        return Answer(1, ask)

    return at_layer


def _by_cluster(
    clusters: "NDArray[np.int64]", n_clusters: int, rows: slice, same: "NDArray[np.bool_]"
) -> "NDArray[np.float64]":
    """(2, cluster): decisions that are alike, and those first in rank in both runs."""
    import numpy as np

    shared = np.count_nonzero(same, axis=(1, 2))
    of_rows = clusters[rows]
    counts = (np.bincount(of_rows, of, n_clusters) for of in (shared, same[:, 0, 0]))
    return np.stack(list(counts))
