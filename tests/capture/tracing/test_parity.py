"""What is stored equals a plain forward pass of the same checkpoint, prompt by prompt.

The oracle is transformers alone: the model as it loads, PyTorch hooks, and the experts written out
in a loop. The store is read with duckdb and zarr alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture

pytestmark = pytest.mark.model


@dataclass
class Captured:
    folder: Path
    model: Any
    tokenizer: Any
    read: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        if name not in self.read:
            files = f"{self.folder}/tables/{name}/*.parquet"
            self.read[name] = duckdb.sql(f"from read_parquet('{files}')").df()
        return self.read[name]

    def array(self, name: str, layer: int) -> Any:
        path = f"{name}/{layer}"
        if path not in self.read:
            self.read[path] = zarr.open(str(self.folder / "arrays.zarr"), mode="r")[path][:]
        return self.read[path]


@dataclass
class Plain:
    """One prompt through the plain model, seen by hooks."""

    seen: dict[str, torch.Tensor]
    logits: torch.Tensor


def plain_forward(model: Any, token_ids: list[int]) -> Plain:
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for index, layer in enumerate(model.model.layers):
        handles.append(
            layer.register_forward_pre_hook(
                lambda _, args, i=index: seen.__setitem__(f"pre{i}", args[0][0])
            )
        )
        handles.append(
            layer.post_attention_layernorm.register_forward_pre_hook(
                lambda _, args, i=index: seen.__setitem__(f"mid{i}", args[0][0])
            )
        )
        handles.append(
            layer.mlp.register_forward_hook(
                lambda _, args, out, i=index: seen.update({f"in{i}": args[0][0], f"out{i}": out[0]})
            )
        )
        if hasattr(layer.mlp, "gate"):
            handles.append(
                layer.mlp.gate.register_forward_hook(
                    lambda _, args, out, i=index: seen.update(
                        {f"logits{i}": out[0], f"weights{i}": out[1], f"experts{i}": out[2]}
                    )
                )
            )
            handles.append(
                layer.mlp.shared_expert.register_forward_hook(
                    lambda _, args, out, i=index: seen.__setitem__(f"shared{i}", out)
                )
            )
            handles.append(
                layer.mlp.shared_expert_gate.register_forward_hook(
                    lambda _, args, out, i=index: seen.__setitem__(f"gate{i}", out.sigmoid())
                )
            )
    handles.append(
        model.model.norm.register_forward_pre_hook(
            lambda _, args: seen.__setitem__("final", args[0][0])
        )
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0]
    for handle in handles:
        handle.remove()
    return Plain(seen, logits)


def expert_output(mlp: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    gate, up = (mlp.experts.gate_up_proj[expert] @ x).chunk(2)
    return mlp.experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up)


def capture_run(
    model: str, tmp: Path, *, batch_size: int, n: int = 8, dtype: str = "float32"
) -> Captured:
    options = CaptureOptions(
        model=model, batch_size=batch_size, dtype=dtype, arrays=("all", "expert_neurons")
    )
    planned = plan_qwen_ioi(options, n=n, seed=3)
    outcome = capture(planned, tmp / "store")
    folder = planned.checkpoint.folder
    return Captured(
        tmp / "store" / "runs" / outcome.run_id,
        AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval(),
        AutoTokenizer.from_pretrained(folder),
    )


@pytest.fixture(scope="module", params=["random", "mini"])
def one_by_one(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Captured:
    model = str(random_model) if request.param == "random" else "qwen-moe-mini"
    return capture_run(model, tmp_path_factory.mktemp("parity"), batch_size=1)


@pytest.fixture(scope="module", params=["random", "mini"])
def batched(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Captured:
    model = str(random_model) if request.param == "random" else "qwen-moe-mini"
    return capture_run(model, tmp_path_factory.mktemp("parity"), batch_size=7)


def moe_layers(captured: Captured) -> list[int]:
    return [i for i, layer in enumerate(captured.model.model.layers) if hasattr(layer.mlp, "gate")]


def compare(captured: Captured, exact: bool) -> None:
    """Hold every stored value against the plain forward pass, example by example."""

    def same(stored: Any, plain: torch.Tensor, what: str) -> None:
        expected = plain.float().numpy()
        if exact:
            np.testing.assert_array_equal(np.asarray(stored), expected, err_msg=what)
        else:
            np.testing.assert_allclose(
                np.asarray(stored), expected, rtol=2e-4, atol=2e-5, err_msg=what
            )

    tokens, routing = captured.table("tokens"), captured.table("routing")
    stats, predictions = captured.table("router_stats"), captured.table("predictions")
    examples = captured.table("examples").sort_values("example_id")
    layers = moe_layers(captured)
    assert sorted(routing["layer"].unique()) == layers
    lengths = set()
    for example in examples.itertuples():
        own = tokens[tokens.example_id == example.example_id].sort_values("position")
        token_ids = captured.tokenizer(example.text, add_special_tokens=False)["input_ids"]
        lengths.add(len(token_ids))
        assert own.token_id.tolist() == token_ids
        assert "".join(own.token) == example.text
        plain = plain_forward(captured.model, token_ids)
        rows = own.array_row.to_numpy()
        for layer in layers:
            mine = routing[(routing.layer == layer) & routing.token_idx.isin(own.token_idx)]
            mine = mine.sort_values(["token_idx", "rank"])
            order = plain.seen[f"weights{layer}"].argsort(dim=1, descending=True, stable=True)
            experts = plain.seen[f"experts{layer}"].gather(1, order)
            assert mine.expert.tolist() == experts.flatten().tolist()
            weights = plain.seen[f"weights{layer}"].gather(1, order)
            same(mine.weight.to_numpy().reshape(weights.shape), weights, f"weights {layer}")
            for name, key in (
                ("router_logits", "logits"),
                ("router_input", "in"),
                ("shared_outputs", "shared"),
                ("residual_mid", "mid"),
                ("residual_pre", "pre"),
            ):
                stored = captured.array(name, layer)[rows]
                same(stored, plain.seen[f"{key}{layer}"], f"{name} {layer}")
            outputs = captured.array("expert_outputs", layer)[rows]
            gate = plain.seen[f"gate{layer}"].float().numpy()
            total = (outputs * weights.float().numpy()[..., None]).sum(axis=1)
            total = total + gate * captured.array("shared_outputs", layer)[rows]
            np.testing.assert_allclose(
                total, plain.seen[f"out{layer}"].float().numpy(), rtol=1e-4, atol=1e-5
            )
            here = stats[(stats.layer == layer) & stats.token_idx.isin(own.token_idx)]
            here = here.sort_values("token_idx")
            same(here.shared_gate, plain.seen[f"gate{layer}"].flatten(), f"shared_gate {layer}")
            norms = torch.linalg.vector_norm(plain.seen[f"out{layer}"].float(), dim=-1)
            np.testing.assert_allclose(here.moe_output_norm, norms.numpy(), rtol=1e-4)
        final = captured.array("residual_pre", len(captured.model.model.layers))[rows]
        same(final, plain.seen["final"], "residual after the last layer")
        logprobs = plain.logits.float().log_softmax(dim=-1)
        following = logprobs[:-1].gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0]
        same(own.next_logprob.to_numpy()[:-1], following, "next_logprob")
        assert np.isnan(own.next_logprob.to_numpy()[-1])
        guess = predictions[predictions.example_id == example.example_id].iloc[0]
        target = captured.tokenizer(guess.target, add_special_tokens=False)["input_ids"]
        assert len(target) == 1
        assert guess.predicted == captured.tokenizer.decode([int(plain.logits[-1].argmax())])
        same([guess.target_logprob], logprobs[-1, target], "target_logprob")
    assert len(lengths) > 3, "the prompts should be of mixed lengths"


def test_one_by_one_every_value_is_the_same_to_the_bit(one_by_one: Captured) -> None:
    compare(one_by_one, exact=True)


def test_in_padded_batches_the_routing_is_the_same_and_values_to_rounding(
    batched: Captured,
) -> None:
    compare(batched, exact=False)


def test_expert_outputs_are_those_of_the_experts_written_out(batched: Captured) -> None:
    tokens = batched.table("tokens").sample(6, random_state=0)
    routing = batched.table("routing")
    for token in tokens.itertuples():
        for layer in moe_layers(batched):
            x = torch.from_numpy(batched.array("router_input", layer)[token.array_row])
            mlp = batched.model.model.layers[layer].mlp
            chosen = routing[(routing.token_idx == token.token_idx) & (routing.layer == layer)]
            for decision in chosen.itertuples():
                stored = batched.array("expert_outputs", layer)[token.array_row, decision.rank]
                expected = expert_output(mlp, decision.expert, x).detach().numpy()
                np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(
                    decision.output_norm, np.linalg.norm(expected), rtol=1e-4
                )
                neurons = batched.array("expert_neurons", layer)[token.array_row, decision.rank]
                np.testing.assert_allclose(
                    mlp.experts.down_proj[decision.expert].detach().numpy() @ neurons,
                    expected,
                    rtol=1e-4,
                    atol=1e-5,
                )


def test_router_stats_and_mass_follow_from_the_logits(batched: Captured) -> None:
    tokens = batched.table("tokens").sort_values("token_idx")
    for layer in moe_layers(batched):
        logits = batched.array("router_logits", layer)[tokens.array_row.to_numpy()]
        logits = logits.astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        stats = batched.table("router_stats")
        stats = stats[stats.layer == layer].sort_values("token_idx")
        ordered = np.sort(p, axis=1)[:, ::-1]
        top_k = batched.table("routing")["rank"].max() + 1
        np.testing.assert_allclose(stats.entropy, -(p * np.log2(p)).sum(axis=1), rtol=1e-4)
        np.testing.assert_allclose(stats.margin, ordered[:, 0] - ordered[:, 1], atol=1e-6)
        np.testing.assert_allclose(stats.topk_mass, ordered[:, :top_k].sum(axis=1), rtol=1e-4)
        np.testing.assert_allclose(
            stats.logsumexp, np.log(np.exp(logits).sum(axis=1)), rtol=1e-4, atol=1e-5
        )
        mass = batched.table("router_mass")
        mass = mass[mass.layer == layer].pivot(
            index="example_id", columns="expert", values="probability"
        )
        expected = pd.DataFrame(p).groupby(tokens.example_id.to_numpy()).sum()
        np.testing.assert_allclose(mass.to_numpy(), expected.to_numpy(), rtol=1e-4, atol=1e-6)


def test_a_bf16_model_is_kept_to_the_bit(random_model: Path, tmp_path: Path) -> None:
    captured = capture_run(str(random_model), tmp_path, batch_size=1, n=3, dtype="bfloat16")
    tokens = captured.table("tokens")
    for example_id, own in tokens.groupby("example_id"):
        own = own.sort_values("position")
        plain = plain_forward(captured.model, own.token_id.tolist())
        for layer in moe_layers(captured):
            stored = captured.array("router_input", layer)[own.array_row.to_numpy()]
            assert stored.dtype == np.float32
            expected = plain.seen[f"in{layer}"]
            assert expected.dtype == torch.bfloat16
            np.testing.assert_array_equal(stored, expected.float().numpy(), str(example_id))


def test_a_capture_leaves_the_model_as_it_found_it(random_model: Path) -> None:
    from moedb.capture.structure.blocks import find_blocks
    from moedb.capture.tracing.rehearsal import traced

    model = AutoModelForCausalLM.from_pretrained(random_model).eval()
    names = [name for name, _ in model.named_modules()]
    implementation = model.get_experts_implementation()
    before = plain_forward(model, [5, 6, 7]).logits
    with pytest.raises(RuntimeError, match="on purpose"), traced(model, find_blocks(model)):
        raise RuntimeError("on purpose")
    assert [name for name, _ in model.named_modules()] == names
    assert model.get_experts_implementation() == implementation
    assert torch.equal(plain_forward(model, [5, 6, 7]).logits, before)
