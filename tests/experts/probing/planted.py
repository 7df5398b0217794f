"""A store whose experts have neurons of noise, and one of them that tells a concept.

A dense run over the same tokens can be written beside it, whose layers have twice as many neurons.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import LAYERS, TOP_K, sample_manifest, unit_rows

RUN = "text-0123456789"
DENSE_RUN = "text-fedcba9876"
N_DOCUMENTS, N_TOKENS, WIDTH = 14, 150, 6
LABELLED = 12
"""Documents with labels; of the others nothing is known."""
PLANTED = (3, 2, 4)
"""Layer, expert and neuron that tell ``sign=planted``."""
DENSE_PLANTED = (1, 7)
"""Layer and neuron of the dense run that tell it."""


def values_of(document: int) -> np.ndarray:
    """(token,): planted, other, or none where the token has no label."""
    random = np.random.default_rng([11, document])
    return random.choice(["planted", "other", ""], N_TOKENS, p=[0.3, 0.3, 0.4])


def neurons_of(document: int, layer: int, experts: np.ndarray) -> np.ndarray:
    """(token, rank, neuron)."""
    noise = np.random.default_rng([12, document, layer]).normal(size=(N_TOKENS, TOP_K, WIDTH))
    if layer == PLANTED[0]:
        is_planted = values_of(document) == "planted"
        noise[:, :, PLANTED[2]] += 5.0 * ((experts == PLANTED[1]) & is_planted[:, None])
    return noise.astype(np.float32)


def dense_neurons_of(document: int, layer: int) -> np.ndarray:
    """(token, 1, neuron)."""
    noise = np.random.default_rng([13, document, layer]).normal(size=(N_TOKENS, 1, 2 * WIDTH))
    if layer == DENSE_PLANTED[0]:
        noise[:, 0, DENSE_PLANTED[1]] += 2.0 * (values_of(document) == "planted")
    return noise.astype(np.float32)


def write(
    store: Path, dense: bool = False, n_documents: int = N_DOCUMENTS, run: str | None = None
) -> None:
    """Write the run, or the dense one; some tokens have no row in the arrays."""
    run = run or (DENSE_RUN if dense else RUN)
    manifest = sample_manifest(n_documents, N_TOKENS, run, arrays=("expert_neurons",))
    if dense:
        one = {"n_experts": 1, "top_k": 1, "d_expert": 2 * WIDTH, "scoring": "none"}
        manifest = replace(manifest, layers=tuple({**row, **one} for row in manifest.layers))
    writer = RunWriter(store, manifest)
    writer.begin({})
    for document in range(n_documents):
        tables, _ = unit_rows(manifest, document)
        routing = pd.DataFrame(tables["routing"])
        kept = {}
        for layer in LAYERS:
            experts = routing[routing["layer"] == layer]["expert"].to_numpy()
            kept[ArrayKey("expert_neurons", layer)] = (
                dense_neurons_of(document, layer)
                if dense
                else neurons_of(document, layer, experts.reshape(N_TOKENS, TOP_K))
            )
        if dense:
            first = routing[routing["rank"] == 0].assign(expert=0, weight=1.0)
            tables["routing"] = first.to_dict("list")
        values = values_of(document)
        has = np.flatnonzero(values != "") if document < LABELLED else np.array([], int)
        tables["token_labels"] = {
            "token_idx": document * N_TOKENS + has,
            "key": ["sign"] * len(has),
            "value": values[has].tolist(),
        }
        rows = (document * manifest.unit_rows + np.arange(N_TOKENS)).astype(object)
        rows[7::11] = None
        tables["tokens"] = {**tables["tokens"], "array_row": list(rows)}
        writer.commit_unit(document, tables, kept)
    writer.finish()
