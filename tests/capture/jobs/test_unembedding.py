"""The unembedding and the vocabulary that a run keeps, held against the model's own weights."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
import zarr
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import moedb
from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset
from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.jobs.unembedding import kept_unembedding
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import ArrayNotFoundError, ModelError, UsageError
from moedb.store.arrays.stored import ArrayKey
from moedb.store.reading.snapshot import RunSnapshot, read_run
from moedb.store.verification.run import verify_run
from tests.support.models.cifar_store import CifarStore
from tests.support.models.tiny_models import FAMILIES, tiny_model

pytestmark = pytest.mark.model


class Words:
    """A tokenizer of a small vocabulary."""

    def get_vocab(self) -> dict[str, int]:
        return {f"word {number}": number for number in range(250)}

    def decode(self, ids: list[int]) -> str:
        return f"word {ids[0]}"


def stored(run: RunSnapshot, name: str) -> Any:
    [layer] = run.manifest.arrays[name]
    return zarr.open_array(run.layout.arrays, path=f"{name}/{layer}", mode="r")


def vocabulary(run: RunSnapshot) -> list[tuple[int, str]]:
    [path] = run.files("vocabulary")
    return duckdb.read_parquet(str(path)).select("token_id, token").fetchall()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_run_keeps_the_models_weights_bit_for_bit(
    random_model: Path, tmp_path: Path, dtype: str, is_streamed: bool
) -> None:
    options = CaptureOptions(
        model=str(random_model),
        arrays=("unembedding",),
        dtype=dtype,
        max_bytes=2_000_000 if is_streamed else None,
    )
    planned = plan_qwen_ioi(options, n=4, seed=0, twins=False)
    capture(planned, tmp_path / "store")
    run = read_run(tmp_path / "store", planned.run_id)
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=getattr(torch, dtype))
    kept = np.float16 if dtype == "float16" else np.float32
    unembedding, gain = stored(run, "unembedding"), stored(run, "final_norm")
    assert unembedding.dtype == gain.dtype == kept
    with torch.no_grad():
        expected = model.lm_head.weight.float().numpy().astype(kept)
        norm = model.model.norm.weight.float().numpy().astype(kept)
    np.testing.assert_array_equal(unembedding[:], expected)
    np.testing.assert_array_equal(gain[:], norm)
    assert gain.attrs["centers"] is False and gain.attrs["factor"] == 1
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    assert vocabulary(run) == [(each, tokenizer.decode([each])) for each in range(len(tokenizer))]
    assert str(verify_run(run)).startswith("sound")
    # no token has a row in arrays of which no row is a token
    rows = duckdb.read_parquet([str(path) for path in run.files("tokens")])
    assert rows.filter("array_row is not null").fetchall() == []


@pytest.mark.parametrize("name", ["cohere2_moe", "qwen3_next", "granitemoe", "dbrx", "phimoe"])
def test_what_is_kept_gives_the_models_logits(name: str) -> None:
    """A norm that centers, a gain of 1 more than the weight, a factor, a bias."""
    model = tiny_model(name, FAMILIES[name].settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    with traced(model, find_blocks(model)) as ready:
        kept = kept_unembedding(ready, Words())
        layer = ready.wiring.n_layers
        assert ready.end is not None
        norm, head = ready.end.norm, ready.end.unembedding
    weight = np.asarray(kept.arrays[ArrayKey("unembedding", layer)][0:256])
    gain = np.asarray(kept.arrays[ArrayKey("final_norm", layer)][0:32])
    streams = []
    norm.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 17, 200, 43]]), use_cache=False).logits
    stream = streams[-1].reshape(-1, 32).numpy()
    if kept.about.centers:
        stream = stream - stream.mean(axis=-1, keepdims=True)
    normed = gain * stream / np.sqrt((stream**2).mean(axis=-1, keepdims=True))
    found = normed @ weight.T
    for module, product in ((norm, weight), (head, np.eye(256))):
        bias = getattr(module, "bias", None)
        found = found if bias is None else found + product @ bias.detach().numpy()
    expected = logits.reshape(-1, 256).numpy()
    np.testing.assert_allclose(kept.about.factor * found, expected, rtol=1e-3, atol=1e-3)
    assert dict(zip(*kept.tables["vocabulary"].values(), strict=True)) == {
        number: f"word {number}" for number in range(250)
    }


def test_a_model_whose_end_is_more_is_refused() -> None:
    model = tiny_model("beam", FAMILIES["beam"].settings)
    with (
        traced(model, find_blocks(model)) as ready,
        pytest.raises(ModelError, match=r"normed last stream.*unembedding is not kept") as caught,
    ):
        kept_unembedding(ready, Words())
    assert "name the other arrays with --arrays" in str(caught.value)


def test_a_dense_model_keeps_its_own(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer) + 5, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ).eval()
    torch.nn.init.normal_(model.transformer.ln_f.weight, 1, 0.1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("The cat sat on the mat.\n")
    run_id = moedb.capture_text(
        tmp_path / "texts.txt",
        model=str(tmp_path / "model"),
        arrays=("final_norm", "expert_outputs"),
        dense=True,
        store=tmp_path / "store",
    )
    run = read_run(tmp_path / "store", run_id)
    assert {*run.manifest.arrays} == {"unembedding", "final_norm", "expert_outputs"}
    assert stored(run, "final_norm").attrs["centers"] is True
    with torch.no_grad():
        np.testing.assert_array_equal(stored(run, "unembedding")[:], model.lm_head.weight)
        np.testing.assert_array_equal(stored(run, "final_norm")[:], model.transformer.ln_f.weight)
    # rows that the tokenizer has no token for have no text
    assert len(vocabulary(run)) == len(tokenizer) == stored(run, "unembedding").shape[0] - 5
    verify_run(run)


def test_it_is_kept_only_where_it_is_named(random_model: Path) -> None:
    def arrays(*choices: str) -> dict[str, tuple[int, ...]]:
        options = CaptureOptions(model=str(random_model), arrays=choices)
        return plan_qwen_ioi(options, n=4, seed=0).arrays

    assert {*arrays("all")} & {"unembedding", "final_norm"} == set()
    assert {*arrays()} & {"unembedding", "final_norm"} == set()
    assert arrays("unembedding") == {"unembedding": (3,), "final_norm": (3,)}
    with pytest.raises(UsageError, match="unembedding is the whole model's, of no layer"):
        arrays("unembedding@2")


def test_its_size_is_counted_once(random_model: Path) -> None:
    def planned(*arrays: str) -> Any:
        options = CaptureOptions(model=str(random_model), arrays=arrays, batch_size=8)
        return plan_qwen_ioi(options, n=200, seed=0)

    without, kept = planned("router_logits"), planned("router_logits", "unembedding")
    assert kept.units == without.units and len(kept.units) > 2
    # 32 floats for each of 4096 tokens, as many for the norm, and a row of the vocabulary each
    more = 4 * 32 * 4096 + 4 * 32 + 4096 * (4 + 8)
    assert kept.estimate.n_bytes == without.estimate.n_bytes + more
    assert kept.bytes_of([0]) == without.bytes_of([0]) + more
    assert kept.bytes_of([1, 2]) == without.bytes_of([1, 2])
    assert ("array", "unembedding", 4096, 4 * 32 * 4096) in kept.estimate.rows()


def test_it_is_opened_as_other_arrays_are(random_model: Path, tmp_path: Path) -> None:
    planned = plan_qwen_ioi(CaptureOptions(str(random_model), arrays=("unembedding",)), n=2, seed=0)
    capture(planned, tmp_path / "store")
    with moedb.open(tmp_path / "store") as whole:
        db = whole.verified()
        assert db.array(None, "unembedding", 3).shape == (4096, 32)
        with pytest.raises(ArrayNotFoundError, match=r"kept are layers \[3\]") as caught:
            db.array(None, "unembedding", 1)
        assert str(caught.value).endswith("capture again with --arrays unembedding")


def test_the_job_without_a_vocabulary_has_none(cifar_store: CifarStore) -> None:
    folder = next(iter(sorted(cifar_store.models.iterdir())))
    dataset = cifar_dataset(cifar_store.test, n=None, draws=1, seed=0)
    with pytest.raises(UsageError, match="this model gives no unembedding; it gives router_logits"):
        plan_cifar_capture(CaptureOptions(str(folder), arrays=("unembedding",)), dataset)
