"""A run whose routing depends on one label of examples, and on another one not at all."""

from pathlib import Path

import numpy as np

from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass
from tests.support.stores.samples import sample_manifest

LAYER, N_EXPERTS, TOP_K = 1, 6, 2
LIKED = {"x": (4.0, 2, 1, 1, 1, 1), "y": (1.0, 1, 1, 1, 2, 4)}
"""By the topic how much more often an expert is liked than another."""


def write_planted(
    store: Path,
    n_examples: int,
    seed: int,
    run_id: str = "text-0000000a1d",
    bent: float = 1.0,
    dataset_sha256: str = "cd" * 32,
) -> None:
    """Write the run: examples of 5 to 40 tokens, with topics and coins in equal numbers.

    A token draws two different experts by what its topic likes, to the power of ``bent``.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 41, n_examples)
    topics = np.array(["x", "y"])[np.arange(n_examples) % 2]
    coins = rng.permutation(np.array(["heads", "tails"])[np.arange(n_examples) // 2 % 2])
    made = sample_manifest(n_units=1, arrays=())
    sizes = {"n_examples": n_examples, "n_tokens": int(lengths.sum())}
    row = {**made.row, **sizes, "dataset_sha256": dataset_sha256}
    units = tuple(UnitRange(at, at + 1, int(n), 0) for at, n in enumerate(lengths))
    layers = ({**made.layers[0], "layer": LAYER, "n_experts": N_EXPERTS, "top_k": TOP_K},)
    writer = RunWriter(store, RunManifest(run_id, row, 64, units, layers, {}))
    writer.begin({})
    first = 0
    for unit, length in enumerate(lengths.tolist()):
        tokens = first + np.arange(length)
        first += length
        liked = np.log(LIKED[topics[unit]]) * bent
        # the two largest of liking and a Gumbel's noise are drawn without replacement
        noisy = liked + rng.gumbel(size=(length, N_EXPERTS))
        experts = np.argsort(-noisy, axis=1)[:, :TOP_K]
        tables = {
            "examples": {
                "example_id": [unit],
                "split": ["all"],
                "text": [""],
                "n_tokens": [length],
            },
            "example_labels": {
                "example_id": [unit] * 2,
                "key": ["topic", "coin"],
                "value": [topics[unit], coins[unit]],
            },
            "tokens": {
                "token_idx": tokens,
                "example_id": np.full(length, unit),
                "position": np.arange(length),
                "token_id": np.zeros(length, np.int32),
                "token": [""] * length,
                "next_logprob": [None] * length,
                "array_row": [None] * length,
            },
            "routing": {
                "token_idx": np.repeat(tokens, TOP_K),
                "layer": np.full(length * TOP_K, LAYER),
                "rank": np.tile(np.arange(TOP_K), length),
                "expert": experts.ravel(),
                "weight": np.tile(np.array([0.6, 0.4], np.float32), length),
                "output_norm": np.ones(length * TOP_K, np.float32),
            },
            "router_stats": {
                "token_idx": tokens,
                "layer": np.full(length, LAYER),
                **{name: np.ones(length, np.float32) for name in (
                    "entropy", "margin", "logsumexp", "topk_mass", "moe_output_norm")},
                "shared_gate": [None] * length,
            },
        }  # fmt: skip
        writer.commit_unit(unit, with_router_mass(tables, {LAYER: N_EXPERTS}), {})
    writer.finish()
