"""A run whose routing follows from its words, so that a reader can be right about it.

Every example begins with the word of expert 10. The word of number w that comes after a word of an
even number goes to expert w, after one of an odd number to expert w + 5, modulo 10. Expert 11 is
never chosen.
"""

from pathlib import Path

import numpy as np

from moedb.schemas.manifests import ModelEnd, RunManifest, UnitRange
from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass
from tests.support.stores.samples import sample_manifest

RUN_ID = "text-00000f00d5"
WORDS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "Start")
N_EXPERTS, LAYER = 12, 1


def expert_of(word: str, before: str | None) -> int:
    """The expert of a word after another one."""
    number = WORDS.index(word)
    if number == 10:
        return 10
    return number if before is None or WORDS.index(before) % 2 == 0 else (number + 5) % 10


def promoted_by(expert: int) -> list[str]:
    """The words that an expert's output promotes most, where outputs are kept."""
    words = [WORDS[(expert + step) % len(WORDS)] for step in (1, 2)]
    return [word if word == "Start" else f" {word}" for word in words]


def write_routed_words(
    store: Path, n_examples: int = 40, n_words: int = 40, with_outputs: bool = False
) -> None:
    """Write the run: each example a document of its own.

    Where outputs are kept, that of an expert has 2 for the word after its own, and 1 for the next.
    """
    rng = np.random.default_rng(5)
    made = sample_manifest(n_units=1, arrays=())
    n_rows = n_words if with_outputs else 0
    units = tuple(UnitRange(n, n + 1, n_words, n_rows) for n in range(n_examples))
    row = {**made.row, "n_examples": n_examples, "n_tokens": n_examples * n_words}
    row["d_model"] = len(WORDS)
    layers = ({**made.layers[0], "n_experts": N_EXPERTS, "top_k": 1},)
    manifest = RunManifest(RUN_ID, row, 64, units, layers, {})
    outputs, weight, gain = (
        ArrayKey(name, layer)
        for name, layer in (("expert_outputs", LAYER), ("unembedding", 4), ("final_norm", 4))
    )
    if with_outputs:
        kept = {key.name: (key.layer,) for key in (outputs, weight, gain)}
        end = ModelEnd(len(WORDS), centers=False, factor=1.0)
        manifest = RunManifest(RUN_ID, row, 1024, units, layers, kept, end)
    writer = RunWriter(store, manifest)
    identity = np.eye(len(WORDS), dtype=np.float32)
    vocabulary = {
        "token_id": [*range(len(WORDS))],
        "token": [WORDS[each] if each == 10 else f" {WORDS[each]}" for each in range(len(WORDS))],
    }
    if with_outputs:
        ones = np.ones(len(WORDS), np.float32)
        writer.begin({"vocabulary": vocabulary}, arrays={weight: identity, gain: ones})
    else:
        writer.begin({})
    for unit in range(n_examples):
        numbers = [10, *rng.integers(0, 10, n_words - 1).tolist()]
        words = [WORDS[number] for number in numbers]
        experts = [expert_of(w, b) for w, b in zip(words, [None, *words[:-1]], strict=True)]
        token_idx = np.arange(n_words) + unit * n_words
        tokens = [words[0], *(f" {word}" for word in words[1:])]
        tables = {
            "examples": {
                "example_id": [unit],
                "split": ["all"],
                "text": ["".join(tokens)],
                "n_tokens": [n_words],
            },
            "tokens": {
                "token_idx": token_idx,
                "example_id": [unit] * n_words,
                "position": np.arange(n_words),
                "token_id": numbers,
                "token": tokens,
                "next_logprob": [None] * n_words,
                "array_row": unit * 1024 + np.arange(n_words) if with_outputs else [None] * n_words,
            },
            "routing": {
                "token_idx": token_idx,
                "layer": [LAYER] * n_words,
                "rank": [0] * n_words,
                "expert": experts,
                "weight": rng.uniform(0.3, 1.0, n_words).astype(np.float32),
                "output_norm": rng.uniform(1.0, 3.0, n_words).astype(np.float32),
            },
        }
        places = np.array(experts)
        written = 2 * identity[(places + 1) % len(WORDS)] + identity[(places + 2) % len(WORDS)]
        arrays = {outputs: written[:, None, :]} if with_outputs else {}
        writer.commit_unit(unit, with_router_mass(tables, {LAYER: N_EXPERTS}), arrays)
    writer.finish()
