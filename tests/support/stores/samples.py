"""Small runs, made by hand: two layers, four experts, top 2, any number of units; or over texts."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moedb.schemas.arrays import FINAL_NORM, UNEMBEDDING
from moedb.schemas.manifests import ModelEnd, RunManifest, UnitRange
from moedb.store.arrays.stored import ArrayKey
from moedb.store.layout import RunLayout
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass

RUN_ID = "text-0123456789"
LAYERS = (1, 3)
N_LAYERS = 4
N_EXPERTS, TOP_K, D_MODEL = 4, 2, 8


def sample_manifest(
    n_units: int = 3,
    tokens_per_unit: int = 5,
    run_id: str = RUN_ID,
    arrays: tuple[str, ...] = ("router_logits", "expert_outputs"),
    n_vocabulary: int = 0,
) -> RunManifest:
    row = {
        "job": "text",
        "model": "hand-made",
        "model_revision": None,
        "model_sha256": "ab" * 32,
        "architecture": "None",
        "dataset": "numbers",
        "dataset_sha256": "cd" * 32,
        "n_examples": n_units,
        "n_tokens": n_units * tokens_per_unit,
        "d_model": D_MODEL,
        "dtype": "float32",
        "seed": 0,
        "parent_run_id": None,
        "created_at": "2026-01-01T00:00:00+00:00",
        "moedb_version": "0.1.0",
        "config": "{}",
        "versions": "{}",
    }
    layers = tuple(
        {
            "layer": layer,
            "module": f"model.layers.{layer}.mlp",
            "n_experts": N_EXPERTS,
            "top_k": TOP_K,
            "d_expert": 6,
            "has_shared_expert": 0,
            "norm_topk_prob": 0,
            "scoring": "softmax",
        }
        for layer in LAYERS
    )
    return RunManifest(
        run_id=run_id,
        row=row,
        unit_rows=1024,
        units=tuple(
            UnitRange(unit, unit + 1, tokens_per_unit, tokens_per_unit) for unit in range(n_units)
        ),
        layers=layers,
        arrays={
            **dict.fromkeys(arrays, LAYERS),
            **(dict.fromkeys((UNEMBEDDING, FINAL_NORM), (N_LAYERS,)) if n_vocabulary else {}),
        },
        model_end=ModelEnd(n_vocabulary, False, 0.5) if n_vocabulary else None,
        image_shape=(2, 2, 3) if "images" in arrays else None,
    )


def rows_of_run(
    manifest: RunManifest,
) -> tuple[dict[str, Mapping[str, Any]], dict[ArrayKey, np.ndarray]]:
    """What a run has that is of no unit: unembedding and vocabulary, where it has them."""
    if manifest.model_end is None:
        return {}, {}
    rng = np.random.default_rng(3)
    ids = range(manifest.model_end.n_vocabulary)
    return {"vocabulary": {"token_id": [*ids], "token": [f"word {each}" for each in ids]}}, {
        ArrayKey(UNEMBEDDING, N_LAYERS): rng.normal(size=(len(ids), D_MODEL)).astype(np.float32),
        ArrayKey(FINAL_NORM, N_LAYERS): rng.normal(size=D_MODEL).astype(np.float32),
    }


def unit_rows(
    manifest: RunManifest, unit: int
) -> tuple[dict[str, Mapping[str, Any]], dict[ArrayKey, np.ndarray]]:
    """Rows of a unit whose values obey every invariant; the same at every call."""
    rng = np.random.default_rng([7, unit])
    n_tokens = manifest.units[unit].n_tokens
    token_idx = unit * n_tokens + np.arange(n_tokens)
    tables: dict[str, dict[str, list[Any]]] = {
        "routing": {
            n: [] for n in ("token_idx", "layer", "rank", "expert", "weight", "output_norm")
        },
        "router_stats": {
            n: []
            for n in (
                "token_idx",
                "layer",
                "entropy",
                "margin",
                "logsumexp",
                "topk_mass",
                "shared_gate",
                "moe_output_norm",
            )
        },
    }
    arrays = {}
    for layer in LAYERS:
        logits = rng.normal(size=(n_tokens, N_EXPERTS)).astype(np.float32)
        outputs = rng.normal(size=(n_tokens, TOP_K, D_MODEL)).astype(np.float32)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        experts = np.argsort(-logits, axis=1)[:, :TOP_K]
        weights = np.take_along_axis(p, experts, axis=1)
        total = (outputs * weights[..., None]).sum(axis=1)
        arrays[ArrayKey("router_logits", layer)] = logits
        arrays[ArrayKey("expert_outputs", layer)] = outputs
        routing, stats = tables["routing"], tables["router_stats"]
        for t in range(n_tokens):
            for r in range(TOP_K):
                for name, value in (
                    ("token_idx", token_idx[t]),
                    ("layer", layer),
                    ("rank", r),
                    ("expert", experts[t, r]),
                    ("weight", weights[t, r]),
                    ("output_norm", np.linalg.norm(outputs[t, r])),
                ):
                    routing[name].append(value)
            ordered = np.sort(p[t])[::-1]
            for name, value in (
                ("token_idx", token_idx[t]),
                ("layer", layer),
                ("entropy", -(p[t] * np.log2(p[t])).sum()),
                ("margin", ordered[0] - ordered[1]),
                ("logsumexp", np.log(np.exp(logits[t]).sum())),
                ("topk_mass", weights[t].sum()),
                ("shared_gate", None),
                ("moe_output_norm", np.linalg.norm(total[t])),
            ):
                stats[name].append(value)
    kept = {key: rows for key, rows in arrays.items() if key.name in manifest.arrays}
    ids = rng.integers(0, 99, n_tokens)
    rows: dict[str, Mapping[str, Any]] = {
        "examples": {
            "example_id": [unit],
            "split": ["all"],
            "text": [f"number {unit}"],
            "n_tokens": [n_tokens],
        },
        "tokens": {
            "token_idx": token_idx,
            "example_id": np.full(n_tokens, unit),
            "position": np.arange(n_tokens),
            "token_id": ids,
            "token": [f"word {i}" for i in ids]
            if manifest.model_end
            else [f" t{i}" for i in token_idx],
            "next_logprob": [-1.0] * (n_tokens - 1) + [None],
            "array_row": unit * manifest.unit_rows + np.arange(n_tokens),
        },
        **tables,
    }
    return rows, kept


def write_sample(store: Path, **settings: Any) -> RunWriter:
    """Write a complete run, continuing what is there."""
    writer = RunWriter(store, sample_manifest(**settings))
    tables, arrays = rows_of_run(writer.manifest)
    writer.begin(tables, arrays=arrays)
    for unit in writer.snapshot().missing_units:
        writer.commit_unit(unit, *unit_rows(writer.manifest, unit))
    writer.finish()
    return writer


def unfinish(store: Path, run_id: str, *units: str) -> dict[Path, bytes]:
    """Take a complete run back to before its head, and the manifests of some units.

    Returns
    -------
    dict
        The files that were deleted, with what was in them.
    """
    layout = RunLayout(store, run_id)
    files = [*layout.heads.iterdir(), *(layout.segment(unit) for unit in ("final", *units))]
    deleted = {file: file.read_bytes() for file in files}
    for file in deleted:
        file.unlink()
    return deleted


_PIECE = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]|_|\n|[ \t]+")


def tokens_of(text: str) -> list[str]:
    """Words with the blank before them, single digits and marks; they add up to the text."""
    found = _PIECE.findall(text)
    assert "".join(found) == text
    return found


def write_texts(
    store: Path,
    texts: Sequence[str],
    tokenize: Callable[[str], list[str]] = tokens_of,
    finish: bool = True,
    has_texts: bool = True,
    example_labels: Mapping[str, str] | None = None,
) -> RunWriter:
    """Write a run of one layer whose examples are texts, each a unit.

    The token of number i chooses the experts i and i + 1, modulo 4.
    """
    tokenized = [tokenize(text) for text in texts]
    ends = np.cumsum([len(tokens) for tokens in tokenized])
    made = sample_manifest(n_units=1, arrays=())
    units = tuple(UnitRange(n, n + 1, len(t), 0) for n, t in enumerate(tokenized))
    row = {**made.row, "n_examples": len(texts), "n_tokens": int(ends[-1])}
    layers = made.layers[:1]
    writer = RunWriter(store, RunManifest(RUN_ID, row, 64, units, layers, {}))
    writer.begin({})
    ids: dict[str, int] = {}
    for unit, (text, tokens) in enumerate(zip(texts, tokenized, strict=True)):
        n = len(tokens)
        token_idx = np.arange(n) + ends[unit] - n
        tables = {
            "examples": {
                "example_id": [unit],
                "split": ["all"],
                "text": [text if has_texts else None],
                "n_tokens": [n],
            },
            "tokens": {
                "token_idx": token_idx,
                "example_id": [unit] * n,
                "position": np.arange(n),
                "token_id": [ids.setdefault(token, len(ids)) for token in tokens],
                "token": tokens,
                "next_logprob": [None] * n,
                "array_row": [None] * n,
            },
            "routing": {
                "token_idx": np.repeat(token_idx, 2),
                "layer": [layers[0]["layer"]] * 2 * n,
                "rank": [0, 1] * n,
                "expert": np.stack([token_idx % 4, (token_idx + 1) % 4], axis=1).ravel(),
                "weight": np.tile(np.array([0.75, 0.25], np.float32), n),
                "output_norm": [1.0] * 2 * n,
            },
        }
        labels = example_labels or {}
        tables["example_labels"] = {
            "example_id": [unit] * len(labels),
            "key": [*labels],
            "value": [*labels.values()],
        }
        writer.commit_unit(unit, with_router_mass(tables, {layers[0]["layer"]: 4}), {})
    if finish:
        writer.finish()
    return writer
