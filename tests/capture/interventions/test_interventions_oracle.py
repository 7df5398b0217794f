"""Every kind of intervention equals the same change made to the plain model by PyTorch hooks.

The oracle is transformers alone: one prompt at a time from its text, and the MoE block written out.
Nothing of moedb's interventions is used in it; what is changed is read from the stored conditions.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.interventions.choices import Choices
from moedb.capture.interventions.parent_run import open_parent
from moedb.capture.interventions.planning import Resources, plan_sweep
from moedb.capture.interventions.running import run_sweep
from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.jobs.qwen_ioi.job import ioi_dataset
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture

pytestmark = pytest.mark.model

N = 2


@dataclass
class Change:
    """A row of ``conditions``, and the tokens of one example that it changes."""

    kind: str
    layers: list[int]
    experts: dict[int, list[int]]
    params: dict[str, Any]
    tokens: torch.Tensor  # (position,)
    example_id: int


@dataclass
class Seen:
    """What the plain model did with the twin, by layer."""

    residual: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: dict[int, torch.Tensor] = field(default_factory=dict)
    moe: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)


class PlainMoE:
    """Qwen2-MoE's sparse block, written out: every expert on every token."""

    def __init__(self, mlp: Any, top_k: int, normalized: bool) -> None:
        self.mlp, self.top_k, self.normalized = mlp, top_k, normalized

    def route(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, experts = logits.softmax(-1).topk(self.top_k)
        return experts, weights / weights.sum(-1, keepdim=True) if self.normalized else weights

    def weigh(self, logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        weights = logits.softmax(-1).gather(-1, experts)
        return weights / weights.sum(-1, keepdim=True) if self.normalized else weights

    def parts(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mlp = self.mlp
        gate, up = torch.einsum("td,ehd->teh", x, mlp.experts.gate_up_proj).chunk(2, dim=-1)
        every = torch.einsum("teh,edh->ted", silu(gate) * up, mlp.experts.down_proj)
        logits = x @ mlp.gate.weight.T
        experts, weights = self.route(logits)
        return {
            "every": every,
            "logits": logits,
            "experts": experts,
            "weights": weights,
            "shared": mlp.shared_expert(x),
            "gate": (x @ mlp.shared_expert_gate.weight.T).sigmoid(),
        }

    @staticmethod
    def dense_weights(parts: dict[str, torch.Tensor]) -> torch.Tensor:
        """(token, expert)"""
        zeros = torch.zeros_like(parts["logits"])
        return zeros.scatter_add(-1, parts["experts"], parts["weights"])

    def total(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        routed = torch.einsum("te,ted->td", self.dense_weights(parts), parts["every"])
        return routed + parts["gate"] * parts["shared"]


def changed_block(
    moe: PlainMoE, x: torch.Tensor, layer: int, change: Change, twin: Seen
) -> torch.Tensor:
    parts = moe.parts(x)
    untouched, other = moe.total(parts), twin.moe.get(layer, {})
    new = dict(parts)
    wanted = change.experts.get(layer, [])
    total = None
    match change.kind, change.params.get("form") or change.params.get("site"):
        case "ablate-experts", "remove":
            logits = parts["logits"].clone()
            logits[:, wanted] = -torch.inf
            new["experts"], _ = moe.route(logits)
            new["weights"] = moe.weigh(parts["logits"], new["experts"])
        case "ablate-experts", "zero":
            new["every"] = parts["every"].clone()
            new["every"][:, wanted] = 0
        case "random-routing", None:
            numbers = [change.params["seed"], change.params["draw"], layer, change.example_id]
            drawn = np.random.default_rng(numbers).random(tuple(parts["logits"].shape))
            new["experts"] = torch.from_numpy(drawn.argsort(axis=1)[:, : moe.top_k].copy())
            new["weights"] = moe.weigh(parts["logits"], new["experts"])
        case "uniform-weights", None:
            share = parts["weights"].sum(-1, keepdim=True) / moe.top_k
            new["weights"] = share.expand_as(parts["weights"])
        case "force-experts", None:
            new["experts"] = torch.tensor([wanted] * len(x))
            new["weights"] = moe.weigh(parts["logits"], new["experts"])
        case "swap-routing", None:
            new["experts"], new["weights"] = other["experts"], other["weights"]
        case "patch", "block-output":
            total = moe.total(other)
        case "patch", "shared-output":
            new["shared"] = other["shared"]
        case "patch", "expert-output":
            total = untouched
            for sign, each in ((1, other), (-1, parts)):
                weights = moe.dense_weights(each)[:, wanted]
                total = total + sign * torch.einsum("te,ted->td", weights, each["every"][:, wanted])
        case "knock-out-shared", None:
            new["shared"] = torch.zeros_like(parts["shared"])
        case _:
            raise AssertionError(change)
    total = moe.total(new) if total is None else total
    return torch.where(change.tokens[:, None], total, untouched)


class Plain:
    """The plain model, one prompt at a time."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        config = self.model.config
        self.blocks = {
            index: PlainMoE(layer.mlp, config.num_experts_per_tok, config.norm_topk_prob)
            for index, layer in enumerate(self.model.model.layers)
            if hasattr(layer.mlp, "gate")
        }

    def _forward(self, text: str) -> torch.Tensor:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.points: dict[tuple[str, int], torch.Tensor] = {}
        inner = self.model.model
        with torch.no_grad(), ExitStack() as stack:

            def watch(module: Any, *point: Any) -> None:
                def reach(_: Any, args: Any) -> None:
                    self.points[point] = args[0][0, -1]

                stack.callback(module.register_forward_pre_hook(reach).remove)

            for index, layer in enumerate(inner.layers):
                watch(layer.input_layernorm, *(("post", index - 1) if index else ("pre", 0)))
                if index in self.blocks:
                    watch(layer.post_attention_layernorm, "mid", index)
            watch(inner.norm, "post", len(inner.layers) - 1)
            return self.model(input_ids=torch.tensor([ids])).logits[0, -1]  # type: ignore[no-any-return]

    def read(self) -> dict[tuple[str, int], torch.Tensor]:
        """The logits at each point of the last token's stream in the last forward pass."""
        with torch.no_grad():
            return {
                point: self.model.lm_head(self.model.model.norm(stream))
                for point, stream in self.points.items()
            }

    def see(self, text: str) -> tuple[Seen, torch.Tensor]:
        seen = Seen()
        with ExitStack() as stack:
            for index, layer in enumerate(self.model.model.layers):

                def before(_: Any, args: Any, i: int = index) -> None:
                    seen.residual[i] = args[0][0]

                def attended(_: Any, args: Any, out: Any, i: int = index) -> None:
                    seen.attention[i] = out[0][0]

                def ran(_: Any, args: Any, out: Any, i: int = index) -> None:
                    seen.moe[i] = self.blocks[i].parts(args[0][0])

                stack.callback(layer.register_forward_pre_hook(before).remove)
                stack.callback(layer.self_attn.register_forward_hook(attended).remove)
                if index in self.blocks:
                    stack.callback(layer.mlp.register_forward_hook(ran).remove)
            return seen, self._forward(text)

    def run(self, text: str, change: Change, twin: Seen) -> torch.Tensor:
        tokens = change.tokens[:, None]
        with ExitStack() as stack:
            for index in change.layers:
                layer = self.model.model.layers[index]

                def before(_: Any, args: Any, i: int = index) -> Any:
                    return (torch.where(tokens, twin.residual[i], args[0][0])[None], *args[1:])

                def attended(_: Any, args: Any, out: Any, i: int = index) -> Any:
                    return (torch.where(tokens, twin.attention[i], out[0][0])[None], *out[1:])

                def ran(_: Any, args: Any, out: Any, i: int = index) -> Any:
                    x = args[0][0]
                    torch.testing.assert_close(
                        self.blocks[i].total(self.blocks[i].parts(x)), out[0]
                    )
                    return changed_block(self.blocks[i], x, i, change, twin)[None]

                match change.params.get("site"):
                    case "residual":
                        handle = layer.register_forward_pre_hook(before)
                    case "attention-output":
                        handle = layer.self_attn.register_forward_hook(attended)
                    case _:
                        handle = layer.mlp.register_forward_hook(ran)
                stack.callback(handle.remove)
            return self._forward(text)


@pytest.fixture(scope="module", params=["random", "mini"])
def captured(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, Plain]:
    model = str(random_model) if request.param == "random" else "qwen-moe-mini"
    store = tmp_path_factory.mktemp("intervene") / "store"
    options = CaptureOptions(model=model, batch_size=4, arrays=("residual_pre",))
    planned = plan_language_capture(options, partial(ioi_dataset, n=N, seed=5))
    capture(planned, store)
    return store, model, Plain(find_checkpoint(model).folder)


SITES = ("block-output", "expert-output", "shared-output", "attention-output", "residual")
MOST_KINDS = ("ablate-experts", "random-routing", "uniform-weights", "swap-routing", "patch")
SWEEPS = {
    "every kind": Choices(
        (*MOST_KINDS, "force-experts", "knock-out-shared"),
        layers="1-2",
        experts="0,3,5",
        sites=SITES,
        seed=7,
    ),
    "by role": Choices(
        (*MOST_KINDS, "knock-out-shared"),
        layers="1",
        most_frequent=2,
        each=True,
        form="zero",
        sites=SITES,
        roles="s2+end,io,S1",
        draws=2,
    ),
    "layers together": Choices(
        (*MOST_KINDS, "knock-out-shared"),
        layers="1-2",
        experts="1,2,4",
        sites=SITES,
        together=True,
        roles="all,other",
        split="clean",
    ),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_kind_is_the_change_made_by_hooks(
    name: str, captured: tuple[Path, str, Plain]
) -> None:
    store, model, plain = captured
    choices = SWEEPS[name]
    top_k = plain.model.config.num_experts_per_tok
    if name == "every kind" and top_k > 3:  # as many as the router chooses
        choices = Choices(**{**vars(choices), "experts": "0,3,5,7"})
    planned = plan_sweep(
        open_parent(store, "qwen-ioi"), choices, Resources(model, batch_size=24), lens=True
    )
    starts = {group.start for group in planned.groups}
    assert starts <= {1, 2} and starts, "the sweep should start from stored streams"
    outcome = run_sweep(planned, store, progress=Notes())
    tables = store / "runs" / outcome.run_id / "tables"

    def rows(statement: str) -> list[tuple[Any, ...]]:
        return duckdb.sql(statement).fetchall()

    parent = store / "runs" / planned.parent.snapshot.run_id / "tables"
    texts = dict(rows(f"select example_id, text from '{tables}/examples/*.parquet'"))
    labels = f"from '{tables}/example_labels/*.parquet'"
    twins = {int(a): int(b) for a, b in rows(f"select example_id, value {labels} where key='twin'")}
    twins |= {b: a for a, b in twins.items()}
    names = {
        key: dict(rows(f"select example_id, value {labels} where key = '{key}'"))
        for key in ("io", "s")
    }
    roles: dict[int, list[str]] = {}
    for example_id, role in rows(
        f"select example_id, value from '{parent}/tokens/*.parquet' join "
        f"(from '{parent}/token_labels/*.parquet' where key = 'role') using (token_idx) "
        "order by token_idx"
    ):
        roles.setdefault(example_id, []).append(role)
    conditions = {
        number: rest
        for number, *rest in rows(
            f"select condition_id, kind, layer, expert, params from '{tables}/conditions/*.parquet'"
        )
    }
    changed = [i for i in texts if name != "layers together" or i % 2 == 0]
    readings: dict[tuple[int, int], dict[tuple[str, int], list[float]]] = {}
    for number, example_id, place, layer, *values in rows(
        "select condition_id, example_id, place, layer, logit, logprob, logit_diff "
        f"from '{tables}/logit_lens/*.parquet' where candidate = 'target'"
    ):
        readings.setdefault((number, example_id), {})[place, layer] = values
    assert len(readings) == len(texts) + (len(conditions) - 1) * len(changed)
    seen, untouched_points = {}, {}
    for example_id, text in texts.items():
        seen[example_id] = plain.see(text)
        untouched_points[example_id] = plain.read()
    predictions = rows(
        "select condition_id, example_id, target, predicted, correct, target_logprob, logit_diff "
        f"from '{tables}/predictions/*.parquet'"
    )
    assert len(predictions) == len(texts) + (len(conditions) - 1) * len(changed)
    moved = dict.fromkeys(conditions, 0.0)
    for number, example_id, target, predicted, correct, logprob, diff in predictions:
        kind, layer, expert, text = conditions[number]
        params = json.loads(text)
        layers = params.get("layers", [layer] if number else [])
        experts = params.get("experts", [] if expert is None else [expert])
        if isinstance(experts, list):
            experts = {str(each): experts for each in layers}
        changing = [not params.get("roles") or r in params["roles"] for r in roles[example_id]]
        change = Change(
            kind,
            layers,
            {int(each): own for each, own in experts.items()},
            params,
            torch.tensor(changing),
            example_id,
        )
        untouched = seen[example_id][1]
        logits, points = untouched, untouched_points[example_id]
        if number:
            logits = plain.run(texts[example_id], change, seen[twins[example_id]][0])
            # Before the first layer that is changed nothing is stored: there is nothing new.
            entered = ("post", min(layers) - 1)
            points = {
                point: each
                for point, each in plain.read().items()
                if point[1] >= min(layers) or point == entered
            }
        moved[number] = max(moved[number], float((logits - untouched).abs().max()))
        [io], [s] = (
            plain.tokenizer(" " + names[key][example_id], add_special_tokens=False)["input_ids"]
            for key in ("io", "s")
        )
        what = f"condition {number}: {conditions[number]}, example {example_id}"
        np.testing.assert_allclose(
            [logprob, diff],
            [float(logits.log_softmax(-1)[io]), float(logits[io] - logits[s])],
            rtol=2e-4,
            atol=1e-4,
            err_msg=what,
        )
        expected = {
            point: [float(each[io]), float(each.log_softmax(-1)[io]), float(each[io] - each[s])]
            for point, each in points.items()
        }
        found = readings[number, example_id]
        assert found.keys() == expected.keys(), what
        for point, values in found.items():
            np.testing.assert_allclose(values, expected[point], rtol=5e-4, atol=2e-4, err_msg=what)
        assert predicted == plain.tokenizer.decode([int(logits.argmax())]), what
        assert target == " " + names["io"][example_id] and correct == (predicted == target)
    # Where nothing moves, nothing is tested: each kind must change what the model says somewhere.
    # Before the name that differs, a prompt and its twin are the same, so not everywhere.
    most: dict[tuple[str, str], float] = {}
    for number, (kind, _, _, text) in conditions.items():
        key = (kind, json.loads(text).get("site", ""))
        most[key] = max(most.get(key, 0.0), moved[number])
    assert len(most) >= 11 and all(value > 1e-3 for key, value in most.items() if key[0] != "none")


class Notes:
    """Fails where a sweep has something to say: nothing should be out of the ordinary here."""

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def begin(self, n_tokens: int, done: int) -> None:
        assert done == 0
        self.left = n_tokens

    def advance(self, n_tokens: int) -> None:
        self.left -= n_tokens
        assert self.left >= 0
