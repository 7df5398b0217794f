"""A run over images of plain colours, whose classes and answers would act if read as markup."""

from pathlib import Path
from typing import Any

import numpy as np

from moedb.schemas.arrays import IMAGES
from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import sample_manifest

RUN = "cifar-moe-00000000aa"
LAYER, N_EXPERTS, TOP_K = 3, 5, 2
SHAPE = (8, 16, 3)
CLASSES = (
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "ship\x1b[31m",
)
N_UNITS, PER_UNIT = 2, 150
N_IMAGES = N_UNITS * PER_UNIT
NOT_KEPT = 7
"""Of an image that the arrays do not have."""


def colours() -> np.ndarray:
    """(image, channel): the one colour of each image."""
    return np.random.default_rng(5).integers(0, 256, (N_IMAGES, 3))


def classes() -> np.ndarray:
    """(image,): which of ``CLASSES`` each is."""
    return np.random.default_rng(6).integers(0, len(CLASSES), N_IMAGES)


def write_pictured(store: Path, with_images: bool = True) -> None:
    """Write the run, complete."""
    made = sample_manifest(N_UNITS, PER_UNIT, RUN, arrays=())
    row = {**made.row, "job": "cifar-moe", "n_examples": N_IMAGES, "dataset": "colours"}
    units = tuple(
        UnitRange(unit * PER_UNIT, (unit + 1) * PER_UNIT, PER_UNIT, PER_UNIT)
        for unit in range(N_UNITS)
    )
    layer = {**made.layers[0], "layer": LAYER, "n_experts": N_EXPERTS, "top_k": TOP_K}
    arrays = {IMAGES: (0,)} if with_images else {}
    shape = SHAPE if with_images else None
    manifest = RunManifest(RUN, row, 1024, units, (layer,), arrays, image_shape=shape)
    writer = RunWriter(store, manifest)
    untouched = {"condition_id": 0, "kind": "none", "layer": None, "expert": None, "params": "{}"}
    writer.begin({"conditions": {name: [value] for name, value in untouched.items()}})
    for unit in range(N_UNITS):
        writer.commit_unit(unit, *_rows(unit, with_images))
    writer.finish()


def _rows(unit: int, with_images: bool) -> tuple[Any, Any]:
    ids = np.arange(unit * PER_UNIT, (unit + 1) * PER_UNIT)
    rng = np.random.default_rng([9, unit])
    logits = rng.normal(size=(PER_UNIT, N_EXPERTS))
    given = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    experts = np.argsort(-given, axis=1)[:, :TOP_K]
    weights = np.take_along_axis(given, experts, axis=1)
    names = [CLASSES[each] for each in classes()[ids]]
    answers = [CLASSES[each] for each in rng.integers(0, len(CLASSES), PER_UNIT)]
    kept = ids != NOT_KEPT
    # rows of the arrays run against the examples
    array_row = unit * 1024 + np.arange(PER_UNIT)[::-1]
    n = np.bincount(experts.ravel() + np.repeat(np.arange(PER_UNIT), TOP_K) * N_EXPERTS)
    n = np.resize(np.pad(n, (0, PER_UNIT * N_EXPERTS - len(n))), (PER_UNIT, N_EXPERTS))
    tables = {
        "examples": {
            "example_id": ids,
            "split": ["test"] * PER_UNIT,
            "text": [None] * PER_UNIT,
            "n_tokens": [1] * PER_UNIT,
        },
        "example_labels": {"example_id": ids, "key": ["class"] * PER_UNIT, "value": names},
        "tokens": {
            "token_idx": ids,
            "example_id": ids,
            "position": np.zeros(PER_UNIT, dtype=int),
            "token_id": [None] * PER_UNIT,
            "token": [None] * PER_UNIT,
            "next_logprob": [None] * PER_UNIT,
            "array_row": [
                int(at) if there else None for at, there in zip(array_row, kept, strict=True)
            ],
        },
        "routing": {
            "token_idx": np.repeat(ids, TOP_K),
            "layer": np.full(PER_UNIT * TOP_K, LAYER),
            "rank": np.tile(np.arange(TOP_K), PER_UNIT),
            "expert": experts.ravel(),
            "weight": weights.ravel(),
            "output_norm": rng.uniform(1, 9, PER_UNIT * TOP_K).astype(np.float32),
        },
        "router_stats": {
            "token_idx": ids,
            "layer": np.full(PER_UNIT, LAYER),
            "entropy": -(given * np.log2(given)).sum(axis=1),
            "margin": np.sort(given)[:, -1] - np.sort(given)[:, -2],
            "logsumexp": np.log(np.exp(logits).sum(axis=1)),
            "topk_mass": weights.sum(axis=1),
            "shared_gate": [None] * PER_UNIT,
            "moe_output_norm": np.ones(PER_UNIT),
        },
        "router_mass": {
            "example_id": np.repeat(ids, N_EXPERTS),
            "layer": np.full(PER_UNIT * N_EXPERTS, LAYER),
            "expert": np.tile(np.arange(N_EXPERTS), PER_UNIT),
            "probability": given.ravel(),
            "n_decisions": n.ravel(),
            "weight": (given * n).ravel().astype(float),
        },
        "predictions": {
            "condition_id": np.zeros(PER_UNIT, dtype=int),
            "example_id": ids,
            "target": names,
            "predicted": answers,
            "correct": [int(a == b) for a, b in zip(names, answers, strict=True)],
            "target_logprob": rng.uniform(-3, 0, PER_UNIT).astype(np.float32),
            "logit_diff": [None] * PER_UNIT,
        },
    }
    if not with_images:
        return tables, {}
    pixels = np.repeat(colours()[ids[::-1]], SHAPE[0] * SHAPE[1], axis=0).reshape(PER_UNIT, -1)
    return tables, {ArrayKey(IMAGES, 0): pixels.astype(np.float32)}
