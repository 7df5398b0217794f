"""Writing trials of a small image classifier, as captures of the job cifar-moe store them.

They do not grow with the benchmark: queries over trials read these, and nothing else.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.queries.synthetic.routers import to_bfloat16
from benchmarks.queries.synthetic.settings import UNIT_TOKENS
from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.schemas.tables import ROUTER_MASS
from moedb.schemas.version import __version__
from moedb.store.files import sha256_of_json
from moedb.store.writing.run_writer import RunWriter

N_TRIALS = 4
N_EXPERTS = 10
LAYER = 2
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CONDITIONS = (
    ("none", None),
    *(("force-experts", expert) for expert in range(N_EXPERTS)),
    *((kind, None) for kind in ("random-routing", "random-routing-reweighted") for _ in range(2)),
    ("reinitialize-experts", None),
)


def write_trials(store: Path, n_images: int, seed: int) -> list[str]:
    """Write the trials, or what is missing of them; return their names."""
    return [_write_trial(store, trial, n_images, seed) for trial in range(N_TRIALS)]


def _write_trial(store: Path, trial: int, n_images: int, seed: int) -> str:
    config = {"job": "cifar-moe", "trial": trial, "n_images": n_images, "seed": seed}
    firsts = range(0, n_images, UNIT_TOKENS)
    spans = [(first, min(first + UNIT_TOKENS, n_images)) for first in firsts]
    manifest = RunManifest(
        run_id=f"cifar-moe-{sha256_of_json(config)[:10]}",
        row=_row(config),
        unit_rows=1024,
        units=tuple(UnitRange(first, end, end - first, 0) for first, end in spans),
        layers=(_LAYER_ROW,),
        arrays={},
    )
    writer = RunWriter(store, manifest)
    n = len(CONDITIONS)
    writer.begin(
        {
            "conditions": {
                "condition_id": np.arange(n),
                "kind": [kind for kind, _ in CONDITIONS],
                "layer": [None if kind == "none" else LAYER for kind, _ in CONDITIONS],
                "expert": [expert for _, expert in CONDITIONS],
                "params": ["{}"] * n,
            },
            "run_labels": {
                "key": ["variant", "experts", "trial"],
                "value": ["base", str(N_EXPERTS), str(trial)],
            },
        }
    )
    for unit in writer.snapshot().missing_units:
        writer.commit_unit(unit, _unit_tables(*spans[unit], trial, seed), {})
    writer.finish()
    return manifest.run_id


_LAYER_ROW = {
    "layer": LAYER,
    "module": "moe",
    "n_experts": N_EXPERTS,
    "top_k": 1,
    "d_expert": 64,
    "has_shared_expert": 0,
    "norm_topk_prob": 0,
    "scoring": "softmax",
}


def _row(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "job": "cifar-moe",
        "model": "synthetic",
        "model_revision": None,
        "model_sha256": sha256_of_json(config),
        "architecture": "None",
        "dataset": "synthetic",
        "dataset_sha256": sha256_of_json(config["n_images"]),
        "n_examples": config["n_images"],
        "n_tokens": config["n_images"],
        "d_model": 256,
        "dtype": "float32",
        "seed": config["seed"],
        "parent_run_id": None,
        "created_at": "2025-12-01T00:00:00.000000+00:00",
        "moedb_version": __version__,
        "config": json.dumps(config, sort_keys=True),
        "versions": "{}",
    }


def _unit_tables(first: int, end: int, trial: int, seed: int) -> dict[str, dict[str, Any]]:
    images = np.arange(first, end)
    n = len(images)
    rng = np.random.default_rng([seed, 6, trial, first])
    classes = images % len(CLASSES)
    taste = np.random.default_rng([seed, 7, trial]).normal(0, 1.5, (len(CLASSES), N_EXPERTS))
    logits = taste[classes] + rng.normal(0, 0.7, (n, N_EXPERTS))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expert = p.argmax(axis=1)
    weight = to_bfloat16(p.max(axis=1).astype(np.float32))
    ordered = np.sort(p, axis=1)
    layer = np.full(n, LAYER)
    decided = np.zeros((n, N_EXPERTS))
    decided[np.arange(n), expert] = 1
    mass = {
        "example_id": np.repeat(images, N_EXPERTS),
        "layer": np.full(n * N_EXPERTS, LAYER),
        "expert": np.tile(np.arange(N_EXPERTS), n),
        "probability": p.ravel(),
        "n_decisions": decided.astype(np.int64).ravel(),
        "weight": (decided * weight[:, None]).ravel(),
    }
    return {
        "examples": {
            "example_id": images,
            "split": ["test"] * n,
            "text": [None] * n,
            "n_tokens": np.ones(n, np.int64),
        },
        "tokens": {
            "token_idx": images,
            "example_id": images,
            "position": np.zeros(n, np.int64),
            "token_id": [None] * n,
            "token": [None] * n,
            "next_logprob": [None] * n,
            "array_row": [None] * n,
        },
        "example_labels": {
            "example_id": images,
            "key": ["class"] * n,
            "value": np.array(CLASSES, object)[classes],
        },
        "routing": {
            "token_idx": images,
            "layer": layer,
            "rank": np.zeros(n, np.int64),
            "expert": expert,
            "weight": weight,
            "output_norm": rng.gamma(9, 0.3, n),
        },
        "router_stats": {
            "token_idx": images,
            "layer": layer,
            "entropy": -(p * np.log2(p)).sum(axis=1),
            "margin": ordered[:, -1] - ordered[:, -2],
            "logsumexp": np.log(np.exp(logits).sum(axis=1)),
            "topk_mass": p.max(axis=1),
            "shared_gate": [None] * n,
            "moe_output_norm": rng.gamma(9, 0.3, n),
        },
        "router_mass": {name: mass[name] for name in ROUTER_MASS.column_names[1:]},
        "predictions": _predictions(rng, images, classes),
    }


def _predictions(rng: np.random.Generator, images: Any, classes: Any) -> dict[str, Any]:
    n, n_conditions = len(images), len(CONDITIONS)
    accuracy = np.array([0.7 if kind == "none" else 0.4 for kind, _ in CONDITIONS])
    correct = rng.random((n_conditions, n)) < accuracy[:, None]
    shifted = (classes + rng.integers(1, len(CLASSES), (n_conditions, n))) % len(CLASSES)
    names = np.array(CLASSES, object)
    return {
        "condition_id": np.repeat(np.arange(n_conditions), n),
        "example_id": np.tile(images, n_conditions),
        "target": np.tile(names[classes], n_conditions),
        "predicted": names[np.where(correct, classes, shifted)].ravel(),
        "correct": correct.astype(np.int32).ravel(),
        "target_logprob": -rng.exponential(1.0, n_conditions * n),
        "logit_diff": [None] * (n_conditions * n),
    }
