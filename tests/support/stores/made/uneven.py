"""Runs of uneven shape: layers that differ, examples of unequal length, labels of every kind."""

from pathlib import Path

import numpy as np

from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass

LAYERS = {1: (6, 3), 4: (300, 2), 5: (4, 4), 7: (4, 4), 8: (4, 4)}
"""For each layer its experts and its top k; the last three are counted together."""

RUN, OTHER = "text-00000000aa", "text-00000000bb"


def write_run(store: Path, run_id: str, seed: int) -> None:
    """Two units of examples of unequal length; labels on the run, on examples and on tokens."""
    rng = np.random.default_rng(seed)
    lengths = [[3, 1, 4, 2], [5, 2, 1, 6]]
    layers = tuple(
        {
            "layer": layer,
            "module": f"layers.{layer}",
            "n_experts": n_experts,
            "top_k": top_k,
            "d_expert": 4,
            "has_shared_expert": 0,
            "norm_topk_prob": 0,
            "scoring": "softmax",
        }
        for layer, (n_experts, top_k) in LAYERS.items()
    )
    row = {
        "job": "text",
        "model": "made",
        "model_sha256": "ab" * 32,
        "architecture": "Made",
        "dataset": "made",
        "dataset_sha256": "cd" * 32,
        "n_examples": 8,
        "n_tokens": 24,
        "d_model": 8,
        "dtype": "float32",
        "seed": seed,
        "created_at": "2026-01-01T00:00:00+00:00",
        "moedb_version": "0.1.0",
        "config": "{}",
        "versions": "{}",
    }
    units = (UnitRange(0, 4, 10, 0), UnitRange(4, 8, 14, 0))
    writer = RunWriter(store, RunManifest(run_id, row, 64, units, layers, {}))
    writer.begin({"run_labels": {"key": ["lang", "kind"], "value": ["en", "b"]}})
    first_token = 0
    words = np.random.default_rng(1)  # both runs are over the same tokens
    for unit, of_unit in enumerate(lengths):
        examples = np.arange(4) + 4 * unit
        n_tokens = sum(of_unit)
        tokens = np.arange(n_tokens) + first_token
        routing: dict[str, list] = {
            name: [] for name in ("token_idx", "layer", "rank", "expert", "weight", "output_norm")
        }
        for layer, (n_experts, top_k) in LAYERS.items():
            for token in tokens:
                chosen = rng.permutation(min(n_experts, 7))[:top_k]
                routing["token_idx"] += [token] * top_k
                routing["layer"] += [layer] * top_k
                routing["rank"] += range(top_k)
                routing["expert"] += list(chosen)
                routing["weight"] += list(np.sort(rng.random(top_k).astype(np.float32))[::-1])
                routing["output_norm"] += [1.0] * top_k
        n_rows = n_tokens * len(LAYERS)
        statistics = {
            "token_idx": np.tile(tokens, len(LAYERS)),
            "layer": np.repeat(list(LAYERS), n_tokens),
            **{name: rng.random(n_rows, np.float32) for name in ("margin", "topk_mass")},
            "shared_gate": [None] * n_rows,
            "moe_output_norm": np.ones(n_rows, np.float32),
            # nearly the same everywhere: squares of the values would lose the deviation
            "entropy": (1000 + rng.random(n_rows)).astype(np.float32),
            "logsumexp": rng.normal(size=n_rows).astype(np.float32),
        }
        ids = [None if token % 11 == 10 else int(words.integers(0, 4)) for token in tokens]
        tables = {
            "examples": {
                "example_id": examples,
                "split": ["clean", "corrupted", "clean", "held"],
                "text": [""] * 4,
                "n_tokens": of_unit,
            },
            "tokens": {
                "token_idx": tokens,
                "example_id": np.repeat(examples, of_unit),
                "position": np.concatenate([np.arange(n) for n in of_unit]),
                "token_id": ids,
                "token": [None if each is None else f"t{each}" for each in ids],
                "next_logprob": [None] * n_tokens,
                "array_row": [None] * n_tokens,
            },
            "routing": routing,
            "router_stats": statistics,
            "example_labels": {
                "example_id": [*examples, examples[0], examples[1]],
                "key": ["kind"] * 4 + ["kind", "other"],
                "value": ["a", "b", "a", "c", "b", "x"],
            },
            "token_labels": {
                "token_idx": [tokens[0], tokens[0], tokens[1], tokens[4], tokens[4]],
                "key": ["kind", "pos", "pos", "pos", "pos"],
                "value": ["a", "noun", "verb", "noun", "verb"],
            },
        }
        writer.commit_unit(
            unit, with_router_mass(tables, {at: n for at, (n, _) in LAYERS.items()}), {}
        )
        first_token += n_tokens
    writer.finish()
