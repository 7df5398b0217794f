"""Writing a synthetic run with the package's own writer, a unit at a time.

The numbers are drawn, not a model's; their shape is that of a capture: some experts are used more
than others, a token's id and part of speech and its document's domain have experts that they
prefer, weights are rounded to bfloat16, ``router_mass`` is the sum of what the routers said.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.queries.synthetic.routers import Columns, Routers, UnitTokens, router_tables
from benchmarks.queries.synthetic.settings import KINDS, UNIT_TOKENS, Settings
from benchmarks.queries.synthetic.vocabulary import Vocabulary
from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.schemas.version import __version__
from moedb.store.files import sha256_of_json
from moedb.store.writing.run_writer import RunWriter

ROLES = ("other", "io", "s1", "s2", "end")


def write_run(store: Path, settings: Settings) -> str:
    """Write a run, or what is missing of it; return its name."""
    manifest = _manifest(settings)
    writer = RunWriter(store, manifest)
    writer.begin({"conditions": _conditions()})
    model = Routers(settings)
    first_tokens = np.cumsum([0, *(unit.n_tokens for unit in manifest.units)])
    for unit in writer.snapshot().missing_units:
        rows = _unit_tables(settings, model, manifest.units[unit], unit, int(first_tokens[unit]))
        writer.commit_unit(unit, rows, {})
    writer.finish()
    return manifest.run_id


def _conditions() -> Columns:
    return {
        "condition_id": [0],
        "kind": ["none"],
        "layer": [None],
        "expert": [None],
        "params": ["{}"],
    }


def _lengths(settings: Settings) -> NDArray[np.int64]:
    """Tokens of every example."""
    mean = settings.example_tokens
    if settings.is_prompts:
        return np.full(2 * max(1, settings.tokens // (2 * mean)), mean)
    rng = np.random.default_rng([settings.seed, 1])
    shortest, longest = max(1, mean // 2), mean + mean // 2
    lengths = rng.integers(shortest, longest + 1, 2 + 2 * settings.tokens // mean)
    return lengths[: int(np.searchsorted(lengths.cumsum(), settings.tokens)) + 1]


def _units(lengths: NDArray[np.int64]) -> Iterator[UnitRange]:
    """Whole examples, as many as go into a unit."""
    ends = lengths.cumsum()
    first, before = 0, 0
    while first < len(lengths):
        end = max(first + 1, int(np.searchsorted(ends, before + UNIT_TOKENS, side="right")))
        yield UnitRange(first, end, int(ends[end - 1]) - before, 0)
        first, before = end, int(ends[end - 1])


def _manifest(settings: Settings) -> RunManifest:
    lengths = _lengths(settings)
    # documents of the last checkpoint are the newest run: the one that is asked for by default
    day = 2 + (not settings.is_prompts) - settings.checkpoint
    row = {
        "job": settings.job,
        "model": "synthetic",
        "model_revision": None,
        "model_sha256": sha256_of_json([settings.layers, settings.experts, settings.checkpoint]),
        "architecture": "None",
        "dataset": "synthetic",
        "dataset_sha256": sha256_of_json(asdict(replace(settings, checkpoint=0))),
        "n_examples": len(lengths),
        "n_tokens": int(lengths.sum()),
        "d_model": 2048,
        "dtype": "bfloat16",
        "seed": settings.seed,
        "parent_run_id": None,
        "created_at": f"2026-01-0{day}T00:00:00.000000+00:00",
        "moedb_version": __version__,
        "config": json.dumps(asdict(settings), sort_keys=True),
        "versions": "{}",
    }
    layers = tuple(
        {
            "layer": layer,
            "module": f"model.layers.{layer}.mlp",
            "n_experts": settings.experts,
            "top_k": settings.top_k,
            "d_expert": 1408,
            "has_shared_expert": 1,
            "norm_topk_prob": 0,
            "scoring": "softmax",
        }
        for layer in range(settings.layers)
    )
    return RunManifest(settings.run_id, row, 1024, tuple(_units(lengths)), layers, {})


def _unit_tables(
    settings: Settings, model: Routers, span: UnitRange, unit: int, first_token: int
) -> dict[str, Columns]:
    # text and labels do not depend on the checkpoint, the noise of its routers does
    text_rng = np.random.default_rng([settings.seed, 4, unit])
    example_ids = np.arange(span.first_example, span.end_example)
    lengths = _lengths(settings)[span.first_example : span.end_example]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    starts = lengths.cumsum() - lengths
    position = np.arange(span.n_tokens) - starts[owner]
    words = model.vocabulary
    token_id = words.draw(text_rng, span.n_tokens)
    token = words.texts[token_id]
    if settings.is_prompts:
        kind = (example_ids // 2) % len(KINDS[settings.job])
    else:
        kind = text_rng.integers(0, len(KINDS[settings.job]), len(example_ids))
    tag = words.tags_of(text_rng, token_id)
    token_idx = first_token + np.arange(span.n_tokens)
    tokens = UnitTokens(unit, token_idx, token_id, tag, kind[owner], example_ids, starts)
    rows = {
        "examples": _examples(settings, example_ids, lengths, token),
        "tokens": {
            "token_idx": token_idx,
            "example_id": example_ids[owner],
            "position": position,
            "token_id": token_id,
            "token": token,
            "next_logprob": _next_logprob(text_rng, position, lengths[owner]),
            "array_row": [None] * span.n_tokens,
        },
        "example_labels": {
            "example_id": example_ids,
            "key": ["template" if settings.is_prompts else "domain"] * len(example_ids),
            "value": np.array(KINDS[settings.job], object)[kind],
        },
        "token_labels": _token_labels(settings, words, token_idx, position, tag),
        **router_tables(settings, model, tokens),
    }
    if settings.is_prompts:
        rows["predictions"] = _predictions(text_rng, example_ids, token[starts], token[starts + 1])
    return rows


def _examples(
    settings: Settings, example_ids: NDArray[Any], lengths: NDArray[Any], token: NDArray[Any]
) -> Columns:
    ends = lengths.cumsum()
    if settings.is_prompts:
        splits = ["corrupted" if example % 2 else "clean" for example in example_ids]
    else:
        splits = ["train"] * len(example_ids)
    return {
        "example_id": example_ids,
        "split": splits,
        "text": ["".join(token[end - n : end]) for end, n in zip(ends, lengths, strict=True)],
        "n_tokens": lengths,
    }


def _next_logprob(
    rng: np.random.Generator, position: NDArray[Any], length: NDArray[Any]
) -> NDArray[Any]:
    drawn = -rng.exponential(2.5, len(position)).astype(np.float32)
    return np.ma.masked_array(drawn, position == length - 1)


def _token_labels(
    settings: Settings,
    words: Vocabulary,
    token_idx: NDArray[Any],
    position: NDArray[Any],
    tag: NDArray[Any],
) -> Columns:
    if settings.is_prompts:
        last = settings.example_tokens - 1
        role = np.select(
            [position == 3, position == 5, position == 12, position == last], [1, 2, 3, 4], 0
        )
        return {
            "token_idx": token_idx,
            "key": ["role"] * len(token_idx),
            "value": np.array(ROLES, object)[role],
        }
    # no treebank has a tag for everything: one token in 32 is none of its words
    labelled = token_idx % 32 != 31
    return {
        "token_idx": token_idx[labelled],
        "key": ["upos"] * int(labelled.sum()),
        "value": words.tags[tag[labelled]],
    }


def _predictions(
    rng: np.random.Generator, example_ids: NDArray[Any], target: NDArray[Any], foil: NDArray[Any]
) -> Columns:
    difference = rng.normal(2.0, 1.5, len(example_ids)) - 2.5 * (example_ids % 2)
    correct = difference > 0.3
    return {
        "condition_id": np.zeros(len(example_ids), np.int32),
        "example_id": example_ids,
        "target": target,
        "predicted": np.where(correct, target, foil),
        "correct": correct.astype(np.int32),
        "target_logprob": -rng.exponential(1.0, len(example_ids)),
        "logit_diff": difference,
    }
