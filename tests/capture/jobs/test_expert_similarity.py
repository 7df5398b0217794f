"""Cosines of experts' weights, against numpy on what the checkpoint has by their names."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import norm
from torch import nn

import moedb
from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset
from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.jobs.similarity.cosines import similarity_columns
from moedb.capture.jobs.similarity.layers import expert_similarity
from moedb.capture.jobs.similarity.matching import expected_largest
from moedb.capture.jobs.similarity.weights import expert_weights, listed_weights
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan
from moedb.capture.pipeline.running import capture
from moedb.capture.pipeline.units import Shard
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.rehearsal import traced
from moedb.errors import UsageError
from moedb.store.reading.snapshot import RunSnapshot, read_run
from moedb.store.verification.run import verify_run
from tests.capture.structure.test_architectures import with_lists
from tests.support.models.cifar_store import CifarStore
from tests.support.models.gptq_checkpoint import Format, save_pair
from tests.support.models.tiny_models import FAMILIES, tiny_model

pytestmark = pytest.mark.model

EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
ROUTER = re.compile(r"model\.layers\.(\d+)\.mlp\.gate\.weight")

Weights = dict[str, np.ndarray]
"""The weights of a layer's experts, each (expert, value), by what they are."""


def planned(model: str, **options: Any) -> CapturePlan:
    given = {"arrays": ("none",), **options}
    return plan_qwen_ioi(CaptureOptions(model=model, **given), n=2, seed=0, lens="none")


def rows_of(run: RunSnapshot) -> pd.DataFrame:
    (path,) = run.files("expert_cosines")
    return duckdb.read_parquet(str(path)).df().drop(columns="run_id")


def in_doubles(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in load_file(str(path)).items()}


def stored(folder: Path) -> dict[int, Weights]:
    """A checkpoint's experts, (expert, output, input), which have a tensor for each projection."""
    tensors = in_doubles(folder / "model.safetensors")
    found: dict[int, dict[str, dict[int, np.ndarray]]] = defaultdict(lambda: defaultdict(dict))
    layers: dict[int, Weights] = defaultdict(dict)
    for name, tensor in tensors.items():
        if expert := EXPERT.fullmatch(name):
            found[int(expert[1])][expert[3]][int(expert[2])] = tensor
        elif router := ROUTER.fullmatch(name):
            layers[int(router[1])]["router"] = tensor
    for layer, projections in found.items():
        for name, experts in projections.items():
            layers[layer][name] = np.stack([experts[each] for each in sorted(experts)])
    return layers


def cosines(vectors: np.ndarray) -> np.ndarray:
    flat = vectors.reshape(len(vectors), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(flat), 1)]


def matched(gate: np.ndarray | None, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    into = [each for each in (gate, up) if each is not None]
    neurons = np.concatenate([*into, down.transpose(0, 2, 1)], axis=2)
    neurons /= np.linalg.norm(neurons, axis=2, keepdims=True)
    every = np.einsum("aid,bjd->abij", neurons, neurons)
    both = (every.max(axis=3).mean(axis=2) + every.max(axis=2).mean(axis=2)) / 2
    return both[np.triu_indices(len(neurons), 1)]


def check(found: pd.DataFrame, weights: Weights, rtol: float = 1e-5) -> None:
    """Hold the rows of a layer against the weights; a gate may be missing."""
    n_experts = len(weights["up"])
    a, b = np.triu_indices(n_experts, 1)
    np.testing.assert_array_equal(found[["expert_a", "expert_b"]], np.stack([a, b], axis=1))
    projections = [weights[name] for name in ("gate", "up", "down") if name in weights]
    flat = [each.reshape(n_experts, -1) for each in projections]
    whole = np.concatenate(flat, axis=1)
    close = {"rtol": rtol, "atol": rtol}
    for name in ("gate", "up", "down", "router"):
        column = found[f"{name}_cosine"].to_numpy(float)
        if name in weights:
            np.testing.assert_allclose(column, cosines(weights[name]), **close, err_msg=name)
        else:
            assert np.isnan(column).all()
    np.testing.assert_allclose(found["expert_cosine"], cosines(whole), **close)
    lengths = np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(found["norm_a"], lengths[a], rtol=rtol)
    np.testing.assert_allclose(found["norm_b"], lengths[b], rtol=rtol)
    assert set(found["n_projection"]) == {flat[0].shape[1]}
    assert set(found["n_weights"]) == {whole.shape[1]}
    assert set(found["n_router"]) == {weights["router"].shape[1]}
    assert found["reason"].isna().all()
    if found["matched_cosine"].notna().any():
        expected = matched(weights.get("gate"), weights["up"], weights["down"])
        np.testing.assert_allclose(found["matched_cosine"], expected, **close)


def check_layers(found: pd.DataFrame, layers: dict[int, Weights], rtol: float = 1e-5) -> None:
    assert sorted(set(found["layer"])) == sorted(layers)
    for layer, weights in layers.items():
        check(found[found["layer"] == layer], weights, rtol)


def compared(model: Any, neurons: bool = True) -> pd.DataFrame:
    with traced(model, find_blocks(model)) as ready:
        found = expert_similarity(ready.model, ready.wiring, neurons=neurons)
    assert not any(module._forward_hooks for module in model.modules())
    return pd.DataFrame(found["expert_cosines"])


def test_the_embedded_model(tmp_path: Path) -> None:
    plan = planned("qwen-moe-mini", expert_similarity="neurons")
    capture(plan, tmp_path / "store")
    run = read_run(tmp_path / "store", plan.run_id)
    found = rows_of(run)
    assert len(found) == 6 * 60 * 59 / 2 == run.n_rows("expert_cosines")
    check_layers(found, stored(find_checkpoint("qwen-moe-mini").folder))
    assert json.loads(str(run.row["config"]))["expert_similarity"] == "neurons"
    assert str(verify_run(run)).startswith("sound")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_is_read_layer_by_layer(
    random_model: Path, tmp_path: Path, dtype: str
) -> None:
    frames = []
    for name, max_bytes in (("whole", None), ("streamed", 2_000_000)):
        plan = planned(
            str(random_model), expert_similarity="weights", dtype=dtype, max_bytes=max_bytes
        )
        capture(plan, tmp_path / name)
        frames.append(rows_of(read_run(tmp_path / name, plan.run_id)))
    pd.testing.assert_frame_equal(*frames)
    assert frames[0]["matched_cosine"].isna().all()
    # the model's weights are rounded, where the checkpoint's are not
    check_layers(frames[0], stored(random_model), 1e-5 if dtype == "float32" else 1e-2)


def test_what_gptq_quantized_is_compared_as_the_weights_that_it_stands_for(tmp_path: Path) -> None:
    pair = save_pair(tmp_path / "models", Format(act_order=True))
    plan = planned(str(pair.quantized), expert_similarity="neurons", dtype="float32", device="cpu")
    capture(plan, tmp_path / "store")
    check_layers(rows_of(read_run(tmp_path / "store", plan.run_id)), stored(pair.plain))


@pytest.mark.parametrize(
    "name", ["mixtral", "aria_text", "gpt_oss", "minimax_m3_vl_text", "nemotron_h", "beam"]
)
def test_however_a_family_stacks_them(name: str) -> None:
    """Transposed, in turn, with biases, with a constant beside up, without a gate."""
    model = tiny_model(name, FAMILIES[name].settings)
    found = compared(model)
    blocks = find_blocks(model)
    assert sorted(set(found["layer"])) == [block.layer for block in blocks]
    for block in blocks:
        experts: Any = model.get_submodule(block.experts_path)
        weights = {}
        for key in ("gate_up_proj", "up_proj", "down_proj"):
            if hasattr(experts, key):
                values = getattr(experts, key).detach().double().numpy()
                weights[key] = values.swapaxes(1, 2) if experts.is_transposed else values
        layer: Weights = {"down": weights["down_proj"]}
        if "up_proj" in weights:
            layer["up"] = weights["up_proj"]
        elif name == "gpt_oss":
            layer |= {
                "gate": weights["gate_up_proj"][:, ::2],
                "up": weights["gate_up_proj"][:, 1::2],
            }
        else:
            layer["gate"], layer["up"] = np.split(weights["gate_up_proj"], 2, axis=1)
        of_layer = found[found["layer"] == block.layer]
        scope = model.get_submodule(block.decoder_path)
        (router,) = [
            parameter
            for path, parameter in scope.named_parameters()
            if parameter.shape == (block.n_experts, 32) and "experts" not in path
        ]
        check(of_layer, layer | {"router": router.detach().double().numpy()})


@pytest.mark.parametrize("name", ["qwen2_moe", "olmoe"])
def test_lists_of_experts_as_stacked_ones(name: str) -> None:
    pd.testing.assert_frame_equal(
        compared(with_lists(name, own_choice=True)), compared(tiny_model(name, {})), rtol=1e-6
    )


class Coded(nn.Module):
    """A linear layer that keeps codes and a scale, and shows no weight."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("codes", (weight * 100).round().to(torch.int8))
        self.register_buffer("scale", torch.tensor(0.01))
        self.register_buffer("offset", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.codes * self.scale, self.offset)  # type: ignore[operator]


class Gated(nn.Module):
    """A gated feed-forward layer whose modules say nothing of what they are."""

    def __init__(self, linears: dict[str, nn.Module], gate: str) -> None:
        super().__init__()
        for name, linear in linears.items():
            self.add_module(name, linear)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = "b" if self.gate == "a" else "a"
        parts = self._modules
        hidden = nn.functional.relu(parts[self.gate](x)) * parts[up](x)  # type: ignore[misc]
        return parts["c"](hidden)  # type: ignore[misc,no-any-return]


@pytest.mark.parametrize("kind", ["plain", "coded"])
@pytest.mark.parametrize("gate", ["a", "b"])
def test_experts_of_linear_layers_by_any_name(kind: str, gate: str) -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (6, 5), "b": (6, 5), "c": (5, 6)}
    experts, weights = [], defaultdict(list)
    for _ in range(4):
        linears: dict[str, nn.Module] = {}
        for name, shape in shapes.items():
            weight = torch.randint(-90, 90, shape, generator=generator) / 100
            bias = torch.randn(shape[0], generator=generator)
            weights[name].append(weight.double().numpy())
            linear = nn.Linear(shape[1], shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            linears[name] = linear if kind == "plain" else Coded(weight, bias)
        experts.append(Gated(linears, gate))
    found = similarity_columns(7, 4, listed_weights(experts), None, neurons=True)
    frame = pd.DataFrame(found)
    up = "b" if gate == "a" else "a"
    named = {"gate": gate, "up": up, "down": "c"}
    expected = {name: np.stack(weights[each]) for name, each in named.items()}
    router = {"n_router": 5, "router_cosine": cosines(np.eye(4, 5))}
    check(frame.assign(**router), expected | {"router": np.eye(4, 5)}, 1e-4)
    assert frame["router_cosine"].isna().all() and set(frame["layer"]) == {7}


class Bilinear(Gated):
    """A layer without an activation: its two projections do the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self._modules
        return parts["c"](parts["a"](x) * parts["b"](x))  # type: ignore[misc,no-any-return]


def test_what_cannot_be_told_is_null_with_the_reason() -> None:
    torch.manual_seed(0)
    experts = [
        Bilinear({"a": nn.Linear(5, 6), "b": nn.Linear(5, 6), "c": nn.Linear(6, 5)}, "a")
        for _ in range(3)
    ]
    frame = pd.DataFrame(similarity_columns(0, 3, listed_weights(experts), None, neurons=True))
    for name in ("gate_cosine", "up_cosine", "matched_cosine", "router_cosine"):
        assert frame[name].isna().all()
    weights = [[getattr(each, name).weight.detach() for name in "abc"] for each in experts]
    flat = np.stack([torch.cat([w.flatten() for w in each]).double().numpy() for each in weights])
    np.testing.assert_allclose(frame["expert_cosine"], cosines(flat), rtol=1e-5)
    assert set(frame["reason"]) == {"the gate cannot be told from the up projection"}


def test_experts_that_are_no_feed_forward_layers_are_compared_whole() -> None:
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)) for _ in range(3)]
    frame = pd.DataFrame(similarity_columns(0, 3, listed_weights(experts), None))
    flat = np.stack(
        [
            torch.cat([each[at].weight.detach().flatten() for at in (0, 2)]).double().numpy()
            for each in experts
        ]
    )
    np.testing.assert_allclose(frame["expert_cosine"], cosines(flat), rtol=1e-5)
    assert set(frame["n_weights"]) == {flat.shape[1]} and frame["n_projection"].isna().all()


def test_equal_and_opposite_experts_are_at_the_ends() -> None:
    torch.manual_seed(0)
    one, two, three = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5)) for _ in "abc")
    two.load_state_dict(one.state_dict())
    three.load_state_dict({name: -value for name, value in one.state_dict().items()})
    frame = pd.DataFrame(similarity_columns(0, 3, listed_weights([one, two, three]), None))
    assert frame["expert_cosine"].tolist() == pytest.approx([1, -1, -1])
    assert frame["expert_cosine"].abs().max() <= 1
    # the same neurons in another order
    order = torch.randperm(6)
    two[0].load_state_dict({"weight": one[0].weight[order], "bias": one[0].bias[order]})
    two[2].load_state_dict({"weight": one[2].weight[:, order], "bias": one[2].bias})
    found = similarity_columns(0, 2, listed_weights([one, two]), None, neurons=True)
    assert found["matched_cosine"] == [pytest.approx(1)]
    assert found["expert_cosine"][0] < 0.9
    with torch.no_grad():
        two[0].weight.zero_()
        two[2].weight.zero_()
    assert similarity_columns(0, 2, listed_weights([one, two]), None)["up_cosine"] == [None]


@pytest.mark.parametrize("n", [1, 2, 32, 1408])
def test_the_largest_of_random_values(n: int) -> None:
    # the density of the largest, summed up
    x = np.linspace(-10, 10, 400_001)
    density = n * norm.pdf(x) * norm.cdf(x) ** (n - 1)
    assert expected_largest(n) == pytest.approx(np.trapezoid(x * density, x), abs=1e-6)


def test_random_experts_are_as_alike_as_chance_says() -> None:
    torch.manual_seed(1)
    experts = [nn.Sequential(nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 48)) for _ in range(12)]
    for expert in experts:
        for layer in (expert[0], expert[2]):
            nn.init.normal_(layer.weight)
    frame = pd.DataFrame(similarity_columns(0, 12, listed_weights(experts), None, neurons=True))
    assert frame["matched_cosine"].mean() == pytest.approx(frame["matched_chance"][0], rel=0.02)
    for name, n in (("up_cosine", "n_projection"), ("expert_cosine", "n_weights")):
        assert frame[name].std() * frame[n][0] ** 0.5 == pytest.approx(1, abs=0.25)
        assert abs(frame[name].mean()) * frame[n][0] ** 0.5 < 0.4


@pytest.mark.parametrize("name", ["dbrx", "longcat_flash"])
def test_experts_with_a_forward_of_their_own_have_routers_alone(name: str) -> None:
    frame = compared(tiny_model(name, FAMILIES[name].settings))
    assert frame["router_cosine"].notna().all()
    for column in ("gate_cosine", "up_cosine", "down_cosine", "expert_cosine", "matched_cosine"):
        assert frame[column].isna().all()
    (reason,) = set(frame["reason"])
    assert "does not show whose weights are whose" in reason


def test_weights_that_are_not_there_to_be_compared() -> None:
    model = tiny_model("mixtral", FAMILIES["mixtral"].settings)
    block = find_blocks(model)[0]
    experts: Any = model.get_submodule(block.experts_path)
    experts.down_proj = nn.Parameter(experts.down_proj.detach().to(torch.float8_e4m3fn))
    assert "a format that nothing is computed in" in str(expert_weights(model, block).reason)
    away = expert_weights(model.to("meta"), block)
    assert away.reason == "the weights are not in memory" and away.down is None
    frame = pd.DataFrame(similarity_columns(0, 8, away, None, neurons=True))
    assert len(frame) == 28 and set(frame["reason"]) == {away.reason}
    assert frame.drop(columns=["layer", "expert_a", "expert_b", "reason"]).isna().all(axis=None)


def test_cifar_moes(cifar_store: CifarStore, tmp_path: Path) -> None:
    model = next(each for each in sorted(cifar_store.models.iterdir()) if "-3-trial" in each.name)
    dataset = cifar_dataset(cifar_store.test, n=20, draws=1, seed=0)
    options = CaptureOptions(str(model), expert_similarity="neurons", arrays=("none",))
    plan = plan_cifar_capture(options, dataset)
    capture(plan, tmp_path / "store")
    tensors = in_doubles(model / "model.safetensors")
    n_experts = len(tensors["moe.router.weight"])
    weights = {
        "up": np.stack([tensors[f"moe.experts.{each}.0.weight"] for each in range(n_experts)]),
        "down": np.stack([tensors[f"moe.experts.{each}.2.weight"] for each in range(n_experts)]),
        "router": tensors["moe.router.weight"],
    }
    found = rows_of(read_run(tmp_path / "store", plan.run_id))
    check(found, weights)


def test_it_is_kept_only_where_it_is_asked_for(random_model: Path) -> None:
    plain, asked = (planned(str(random_model), expert_similarity=c) for c in (None, "weights"))
    assert plain.run_id != asked.run_id
    assert "expert_similarity" not in plain.config
    assert "expert_cosines" not in plain.estimate.table_rows
    # two layers of 12 experts
    assert asked.estimate.table_rows["expert_cosines"] == 2 * 66
    of_table = asked.estimate.table_bytes["expert_cosines"]
    assert asked.estimate.n_bytes == plain.estimate.n_bytes + of_table
    assert asked.bytes_of([0]) == plain.bytes_of([0]) + of_table
    with pytest.raises(UsageError, match="expected weights or neurons"):
        planned(str(random_model), expert_similarity="all")


def test_a_model_without_two_experts_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    with pytest.raises(UsageError, match="no layer of this model has two experts"):
        plan_qwen_ioi(
            CaptureOptions(str(tmp_path / "dense"), expert_similarity="weights"),
            n=2,
            seed=0,
            lens="none",
            dense=True,
        )


class Notes:
    """Hears what is said, and passes over the rest."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def begin(self, n_tokens: int, done: int) -> None:
        pass

    def advance(self, n_tokens: int) -> None:
        pass


def test_whoever_goes_on_does_not_compare_again(random_model: Path, tmp_path: Path) -> None:
    options = CaptureOptions(
        str(random_model), arrays=("expert_outputs",), batch_size=8, expert_similarity="weights"
    )
    plan = plan_qwen_ioi(options, n=200, seed=0, lens="none")
    assert len(plan.units) > 1
    said = []
    for index in range(2):
        notes = Notes()
        capture(plan, tmp_path / "store", notes, Shard(index, 2))
        said.append(any("comparing the weights" in text for text in notes.said))
    assert said == [True, False]
    run = read_run(tmp_path / "store", plan.run_id)
    assert run.is_complete
    check_layers(rows_of(run), stored(random_model))


def test_from_python(random_model: Path, tmp_path: Path) -> None:
    run = moedb.capture_ioi(
        tmp_path / "store",
        n=2,
        model=str(random_model),
        arrays=("none",),
        lens="none",
        expert_similarity="weights",
    )
    with moedb.open(tmp_path / "store") as db:
        found = db.query("expert-similarity", run=run).df()
        check_rows = rows_of(read_run(tmp_path / "store", run))
        np.testing.assert_array_equal(found["up_cosine"], check_rows["up_cosine"])
        assert found["chance_sd"].tolist() == pytest.approx([1 / (32 * 16) ** 0.5] * len(found))
        assert found["expert_chance_sd"][0] == pytest.approx(1 / (3 * 32 * 16) ** 0.5)
        assert found["router_chance_sd"][0] == pytest.approx(1 / 32**0.5)
