"""The logit lens and the direction of the logit difference, against transformers itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.examples import Example
from moedb.capture.jobs.qwen_ioi.job import ioi_dataset, plan_qwen_ioi
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.logit_lens import LensReading, LogitLens, Positions, n_lens_tokens
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import ModelError
from moedb.queries.database import open_database
from tests.support.models.tiny_models import FAMILIES, tiny_model

pytestmark = pytest.mark.model

WITHOUT = {"beam": "--lens none", "inkling2_text": "--lens none"}
"""Families whose logits are more than a norm and an unembedding away from the stream."""


def run_of(store: Path, lens: Positions) -> str:
    options = CaptureOptions("qwen-moe-mini", batch_size=4)
    planned = plan_qwen_ioi(options, n=4, seed=3, lens=lens)
    capture(planned, store)
    return planned.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lens") / "store"
    run_of(folder, "all-positions")
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(
        find_checkpoint("qwen-moe-mini").folder, dtype=torch.float32
    ).eval()


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    with open_database(store) as database:
        return database.sql(sql).relation.fetchall()


def test_the_lens_is_the_models_own_end(store: Path, model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    found = {
        row[:5]: row[5:]
        for row in rows(
            store,
            "select example_id, position, layer, place, candidate, target, logit, logprob, rank, "
            "logit_diff from logit_lens",
        )
    }
    examples = ioi_dataset(tokenizer, n=4, seed=3).examples
    n_layers = model.config.num_hidden_layers
    assert len(found) == 2 * (1 + 2 * n_layers) * sum(len(example) for example in examples)
    for index, example in enumerate(examples):
        mids: list[torch.Tensor] = []
        handles = [
            layer.post_attention_layernorm.register_forward_pre_hook(
                lambda module, inputs, mids=mids: mids.append(inputs[0])
            )
            for layer in model.model.layers
        ]
        ends: list[torch.Tensor] = []
        handles.append(
            model.model.norm.register_forward_pre_hook(
                lambda module, inputs, ends=ends: ends.append(inputs[0])
            )
        )
        with torch.no_grad():
            out = model(torch.tensor([example.token_ids]), output_hidden_states=True)
            for handle in handles:
                handle.remove()
            streams = {("pre", 0): out.hidden_states[0], ("post", n_layers - 1): ends[0]}
            streams |= {("mid", layer): mids[layer] for layer in range(n_layers)}
            streams |= {
                ("post", layer - 1): out.hidden_states[layer] for layer in range(1, n_layers)
            }
            for (place, layer), stream in streams.items():
                logits = model.lm_head(model.model.norm(stream[0]))
                for token, other, candidate in (
                    (example.target_id, example.foil_id, "target"),
                    (example.foil_id, example.target_id, "foil"),
                ):
                    for position in range(len(example)):
                        text, *values = found[(index, position, layer, place, candidate)]
                        here = logits[position]
                        assert text == tokenizer.decode([token])
                        logit, logprob, rank, diff = values
                        assert [logit, logprob, diff] == pytest.approx(
                            [
                                float(here[token]),
                                float(here.log_softmax(-1)[token]),
                                float(here[token] - here[other]),
                            ],
                            abs=2e-4,
                        )
                        # Near ties may fall either way.
                        above, at_least = here > here[token] + 2e-4, here > here[token] - 2e-4
                        assert int(above.sum()) <= rank <= int(at_least.sum())


def test_at_the_last_layer_the_lens_is_the_prediction(store: Path) -> None:
    (gap, n_rows), *_ = rows(
        store,
        "select max(abs(l.logit_diff - p.logit_diff)), count(*) from predictions p "
        "join examples e using (run_id, example_id) "
        "join logit_lens l using (run_id, condition_id, example_id) "
        "where l.place = 'post' and l.layer = (select max(layer) from logit_lens) "
        "and l.candidate = 'target' and l.position = e.n_tokens - 1",
    )
    assert n_rows == 8 and gap < 1e-5


def test_what_the_layers_write_adds_up_to_the_logit_difference(store: Path) -> None:
    """Embedding, attention and MoE blocks along the direction: the sum is the difference."""
    tokens = rows(
        store,
        "select t.array_row, p.logit_diff from tokens t join examples e using (run_id, example_id) "
        "join predictions p using (run_id, example_id) where t.position = e.n_tokens - 1",
    )
    row, expected = np.array([t[0] for t in tokens]), np.array([t[1] for t in tokens])
    group: Any = zarr.open_group(next(store.glob("runs/*/arrays.zarr")), mode="r")
    direction = group["logit_direction/6"][:][row]
    parts = [group["residual_pre/0"][:][row]]
    for layer in range(6):
        mid, pre = group[f"residual_mid/{layer}"][:][row], group[f"residual_pre/{layer}"][:][row]
        parts += [mid - pre, group[f"residual_pre/{layer + 1}"][:][row] - mid]
    written = sum((part * direction).sum(axis=1) for part in parts)
    np.testing.assert_allclose(written, expected, atol=1e-3)


def test_only_the_last_position_by_default_and_none_on_request(tmp_path: Path) -> None:
    run_of(tmp_path / "last", "last")
    assert rows(
        tmp_path / "last",
        "select distinct position - n_tokens + 1 from logit_lens "
        "join examples using (run_id, example_id)",
    ) == [(0,)]
    run_of(tmp_path / "none", "none")
    assert rows(tmp_path / "none", "select count(*) from logit_lens") == [(0,)]
    arrays = {path.name for path in next((tmp_path / "none").glob("runs/*/arrays.zarr")).iterdir()}
    assert "residual_pre" in arrays and "logit_direction" not in arrays


def test_examples_without_a_foil_are_passed_over() -> None:
    with_foil = Example("clean", "a b", (1, 2), ("a", "b"), target_id=3, foil_id=4)
    without = Example("clean", "a b c", (1, 2, 3), ("a", "b", "c"), target_id=3)
    assert n_lens_tokens([with_foil, without], "last") == 1
    assert n_lens_tokens([with_foil, without], "all-positions") == 2
    assert n_lens_tokens([with_foil, without], "none") == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_the_direction_gives_the_logit_difference(name: str) -> None:
    model: Any = tiny_model(name, FAMILIES[name].settings)
    examples = [
        Example("clean", None, ids, (None,) * len(ids), target_id=40, foil_id=foil)
        for ids, foil in (((5, 17, 200, 43), 7), ((80, 3), None))
    ]
    with traced(model, find_blocks(model)) as wrapped:
        if name in WITHOUT:
            with pytest.raises(ModelError) as caught:
                LogitLens(model, wrapped.wiring, wrapped.rehearsed)
            assert WITHOUT[name] in str(caught.value.hint)
            return
        lens = LogitLens(model, wrapped.wiring, wrapped.rehearsed)
        batch = wrapped.run([example.token_ids for example in examples])
    stream = batch.residual_pre[max(batch.residual_pre)]
    directions = LensReading(lens, examples, SimpleNamespace(decode=str), "last").directions(stream)
    found = (directions * stream.float()).sum(-1)
    expected = batch.logits[:, 40] - batch.logits[:, 7]
    torch.testing.assert_close(found[:4], expected[:4].float(), atol=1e-5, rtol=1e-4)
    assert found[4:].isnan().all()
