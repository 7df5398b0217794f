"""A run over texts: one layer of four experts, two to a token, as the tokens' numbers say."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass
from tests.support.stores.samples import RUN_ID, sample_manifest

_TOKEN = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]|_|\n|[ \t]+")


def tokens_of(text: str) -> list[str]:
    """Words with the blank before them, single digits and marks; they add up to the text."""
    found = _TOKEN.findall(text)
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
    """Write a run whose examples are texts, each a unit; the token of number i chooses experts
    i and i + 1, modulo 4."""
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
