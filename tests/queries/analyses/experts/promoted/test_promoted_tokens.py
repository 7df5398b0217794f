"""What experts promote, against numpy over the raw arrays and the model's own weights in torch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from transformers import AutoModelForCausalLM

import moedb
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.errors import ArrayNotFoundError
from moedb.queries.analyses.experts.contexts.choosing import Choice
from moedb.queries.analyses.experts.promoted import reading, unembedding
from moedb.queries.analyses.experts.promoted.reading import promoted_by_experts
from moedb.schemas.manifests import ModelEnd
from moedb.store.arrays.stored import ArrayKey
from moedb.store.reading.snapshot import read_run
from moedb.store.writing.run_writer import RunWriter
from tests.support.shared import made_once
from tests.support.stores.samples import (
    D_MODEL,
    N_LAYERS,
    RUN_ID,
    rows_of_run,
    sample_manifest,
    unit_rows,
)

N_VOCABULARY = 60
WEIGHT = ArrayKey("unembedding", N_LAYERS)


def write(
    store: Path,
    end: ModelEnd = ModelEnd(N_VOCABULARY, False, 1.0),  # noqa: B008
    change: Callable[[Any], None] = lambda weight: None,
    named: int = N_VOCABULARY,
    **settings: Any,
) -> Path:
    """A run of 40 tokens, and of a small vocabulary, whose unembedding is changed."""
    settings = {"n_units": 4, "tokens_per_unit": 10, "n_vocabulary": N_VOCABULARY, **settings}
    manifest = replace(sample_manifest(**settings), model_end=end)
    tables, arrays = rows_of_run(manifest)
    change(arrays[WEIGHT])
    of_vocabulary = {name: each[:named] for name, each in tables["vocabulary"].items()}
    writer = RunWriter(store, manifest)
    writer.begin({"vocabulary": of_vocabulary}, arrays=arrays)
    for unit in range(len(manifest.units)):
        writer.commit_unit(unit, *unit_rows(manifest, unit))
    writer.finish()
    return store


def table(store: Path, run_id: str, name: str) -> pd.DataFrame:
    folder = read_run(store, run_id).layout.tables / name
    return pd.concat(pq.ParquetFile(file).read().to_pandas() for file in folder.glob("*.parquet"))


def expected(
    store: Path, layer: int, expert: int, n: int, most: int | None, weighted: bool = False
) -> list[tuple[str, int, float, float]]:
    """Direction, token, logit and share of an expert's tokens, over the largest scores."""
    run = read_run(store, RUN_ID)
    group = zarr.open_group(run.layout.arrays, mode="r")
    [end] = run.manifest.arrays["unembedding"]
    weight = np.asarray(group[f"unembedding/{end}"][:], np.float64)
    gain = np.asarray(group[f"final_norm/{end}"][:], np.float64)
    weight = weight[: len(table(store, RUN_ID, "vocabulary"))]
    rows = table(store, RUN_ID, "routing").merge(table(store, RUN_ID, "tokens"), on="token_idx")
    rows = rows[(rows["layer"] == layer) & (rows["expert"] == expert)]
    rows = rows.assign(score=rows["weight"].astype(float) * rows["output_norm"].astype(float))
    rows = rows.sort_values(["score", "token_idx"], ascending=[False, True])[:most]
    outputs = np.asarray(group[f"expert_outputs/{layer}"][:], np.float64)
    outputs = outputs[rows["array_row"], rows["rank"]]
    if weighted:
        outputs = outputs * rows["weight"].to_numpy(np.float64)[:, None]

    def logits(vectors: Any) -> Any:
        assert run.manifest.model_end is not None
        if run.manifest.model_end.centers:
            vectors = vectors - vectors.mean(axis=-1, keepdims=True)
        found = run.manifest.model_end.factor * (vectors * gain) @ weight.T
        return found - found.mean(axis=-1, keepdims=True)

    mean, each = logits(outputs.mean(axis=0)), logits(outputs)
    found = []
    for direction, sign in (("promotes", -1), ("suppresses", 1)):
        order = np.argsort(sign * mean, kind="stable")[:n]
        firsts = np.argsort(sign * each, axis=1, kind="stable")[:, :n]
        for token in order.tolist():
            share = float((firsts == token).any(axis=1).mean())
            found.append((direction, token, float(mean[token]), share))
    return found


def asked(store: Path, **given: Any) -> pd.DataFrame:
    with moedb.open(store) as db:
        return db.query("promoted-tokens", **{"layer": 3, "per_cluster": 0, "n": 7, **given}).df()


@pytest.mark.parametrize("end", [(False, 1.0), (True, 1.0), (False, -0.25), (True, 3.0)])
@pytest.mark.parametrize(
    ("by", "most", "outputs"), [("top", 5, "weighted"), ("all", None, "plain")]
)
def test_equals_numpy_over_the_raw_arrays(
    tmp_path: Path, end: tuple[bool, float], by: str, most: int | None, outputs: str
) -> None:
    store = write(tmp_path / "store", ModelEnd(N_VOCABULARY, *end), named=50)
    found = asked(store, by=by, contexts=most or 20, outputs=outputs)
    assert found["expert"].unique().tolist() == [0, 1, 2, 3]
    for expert, own in found.groupby("expert"):
        wanted = expected(store, 3, int(expert), 7, most, outputs == "weighted")
        assert list(zip(own["direction"], own["token_id"], strict=True)) == [w[:2] for w in wanted]
        np.testing.assert_allclose(own["logit"], [logit for *_, logit, _ in wanted], rtol=1e-9)
        np.testing.assert_allclose(own["share"], [share for *_, share in wanted])
        assert own["token"].tolist() == [f"word {token}" for _, token, *_ in wanted]
        assert own["place"].tolist() == [*range(1, 8)] * 2
        assert most is None or set(own["n_contexts"]) == {most}


def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "store", named=50)
    whole = asked(store, by="all")
    monkeypatch.setattr(unembedding, "PIECE_ROWS", 4)
    monkeypatch.setattr(unembedding, "HELD_BYTES", 0)
    monkeypatch.setattr(reading, "BLOCK_CONTEXTS", 3)
    pd.testing.assert_frame_equal(asked(store, by="all"), whole, rtol=1e-9)


def test_of_equal_logits_the_smaller_id_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tokens 3, 9, 40 and 41, which are alike, three are named: all contexts agree on them."""

    def alike(weight: Any) -> None:
        weight[:] = 0
        weight[[3, 9, 40, 41]] = np.arange(D_MODEL) % 3
        weight[[5, 20, 58]] = -(np.arange(D_MODEL) % 3)

    store = write(tmp_path / "store", change=alike)
    for rows in (8192, 10):
        monkeypatch.setattr(unembedding, "PIECE_ROWS", rows)
        found = asked(store, expert=2, n=3, by="top", contexts=1)
        tokens = {
            direction: own["token_id"].tolist() for direction, own in found.groupby("direction")
        }
        assert sorted(tokens.values()) == [[3, 9, 40], [5, 20, 58]]
        assert set(found["share"]) == {1.0}


def test_a_quantile_has_its_own_contexts_and_a_seed(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    drawn = [
        asked(store, by=by, contexts=4, quantiles=2, seed=seed, expert=1)
        for by in ("quantile", "random")
        for seed in (0, 0, 1)
    ]
    for first, again, other in (drawn[:3], drawn[3:]):
        pd.testing.assert_frame_equal(first, again)
        assert not first["logit"].equals(other["logit"])
        assert set(first["n_contexts"]) == {4}


def test_only_tokens_whose_outputs_are_kept_are_contexts(tmp_path: Path) -> None:
    manifest = sample_manifest(n_units=1, tokens_per_unit=10, n_vocabulary=N_VOCABULARY)
    tables, arrays = unit_rows(manifest, 0)
    kept = [0, 4, 7]
    tables["tokens"] = {
        **tables["tokens"],
        "array_row": [kept.index(each) if each in kept else None for each in range(10)],
    }
    writer = RunWriter(tmp_path / "store", manifest)
    first = rows_of_run(manifest)
    writer.begin(first[0], arrays=first[1])
    writer.commit_unit(0, tables, {key: rows[kept] for key, rows in arrays.items()})
    writer.finish()
    found = asked(tmp_path / "store", by="all").groupby("expert")["n_contexts"].first()
    routing = pd.DataFrame(tables["routing"])
    own = routing[(routing["layer"] == 3) & routing["token_idx"].isin(kept)]
    assert found.to_dict() == own["expert"].value_counts().sort_index().to_dict()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    without = write_plain(tmp_path / "without")
    with pytest.raises(moedb.MoedbError, match="has no vocabulary, as it keeps no unembedding"):
        asked(without)
    with (
        moedb.open(without) as db,
        pytest.raises(ArrayNotFoundError, match="keeps no unembedding") as caught,
    ):
        next(promoted_by_experts(db, RUN_ID, [3], None))
    assert "capture again with --arrays unembedding,expert_outputs" in str(caught.value)
    alone = write(tmp_path / "alone", arrays=("router_logits",))
    with pytest.raises(ArrayNotFoundError, match="keeps no expert_outputs") as caught:
        asked(alone)
    with pytest.raises(ArrayNotFoundError, match="no expert_outputs of layer 3: it keeps none"):
        asked(alone, run=RUN_ID)


def write_plain(store: Path) -> Path:
    manifest = sample_manifest(n_units=1)
    writer = RunWriter(store, manifest)
    writer.begin({})
    writer.commit_unit(0, *unit_rows(manifest, 0))
    writer.finish()
    return store


def capture_prompts(folder: Path) -> None:
    options = CaptureOptions(model="qwen-moe-mini", arrays=("unembedding", "expert_outputs@1,4"))
    capture(plan_qwen_ioi(options, n=12, seed=0, twins=False), folder / "store")


@pytest.mark.model
def test_equals_the_model_s_own_weights_in_torch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each expert's output is computed anew from a forward pass of the untouched model."""
    folder = find_checkpoint("qwen-moe-mini").folder
    store = made_once(tmp_path_factory, "promoted", capture_prompts) / "store"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    [run_id] = [path.name for path in (store / "runs").iterdir()]
    tokens, routing = (table(store, run_id, name) for name in ("tokens", "routing"))
    block = model.model.layers[4].mlp
    inputs: list[torch.Tensor] = []
    block.register_forward_pre_hook(lambda module, given: inputs.append(given[0].flatten(0, 1)))
    with torch.no_grad():
        for _, own in tokens.sort_values("token_idx").groupby("example_id"):
            model(input_ids=torch.tensor([own["token_id"].tolist()]), use_cache=False)
    read = torch.cat(inputs)
    rows = routing[routing["layer"] == 4]
    expert = int(rows["expert"].value_counts().index[0])
    rows = rows[rows["expert"] == expert]
    chosen = torch.from_numpy(np.sort(rows["token_idx"].to_numpy()))
    experts = block.experts
    with torch.no_grad():
        gate, up = (read[chosen] @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
        outputs = (torch.nn.functional.silu(gate) * up) @ experts.down_proj[expert].T
        logits = model.lm_head(outputs.mean(dim=0) * model.model.norm.weight)
        each = model.lm_head(outputs * model.model.norm.weight)
    logits = (logits - logits.mean()).numpy()
    with moedb.open(store) as db:
        found = db.query(
            "promoted-tokens", layer=4, expert=expert, by="all", n=8, per_cluster=0
        ).df()
        layers = {own.layer for own in promoted_by_experts(db, run_id, [1, 4], Choice(n=3), 2)}
        with pytest.raises(ArrayNotFoundError, match=r"layer 2: kept are layers 1, 4") as caught:
            db.query("promoted-tokens", layer=2)
    assert "--arrays unembedding --arrays expert_outputs@2" in str(caught.value)
    assert layers == {1, 4}
    np.testing.assert_allclose(found["logit"], logits[found["token_id"]], rtol=1e-3, atol=1e-3)
    for direction, sign in (("promotes", -1), ("suppresses", 1)):
        own = found[found["direction"] == direction]
        assert set(own["token_id"]) == set(np.argsort(sign * logits)[:8])
        firsts = np.argsort(sign * each.numpy(), axis=1)[:, :8]
        share = [(firsts == token).any(axis=1).mean() for token in own["token_id"]]
        np.testing.assert_allclose(own["share"], share, atol=1.01 / len(chosen))
