"""A sweep of interventions beside what one would write without moedb: hooks, from the tokens.

    python benchmarks/interventions.py [--model qwen-moe-mini] [--n 40] [--batch-size 128]

Six kinds at every layer, on every prompt and its twin, by `moedb intervene` and by PyTorch hooks on
the plain model, one condition after the other, whole batches from the tokens. Both in this process,
one after the other, model loaded; the answers must agree. The model is a Qwen2-MoE.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from moedb.capture.interventions.choices import Choices
from moedb.capture.interventions.edit_arithmetic import drawn_experts
from moedb.capture.interventions.parent_run import open_parent
from moedb.capture.interventions.planning import Resources, SweepPlan, plan_sweep
from moedb.capture.interventions.running import run_sweep
from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.jobs.qwen_ioi.job import ioi_dataset
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture

EXPERT = 0
CHOICES = Choices(
    (
        "ablate-experts",
        "random-routing",
        "uniform-weights",
        "swap-routing",
        "patch",
        "knock-out-shared",
    ),
    experts=str(EXPERT),
    sites=("residual",),
)


class ByHooks:
    """The same conditions by hooks on the plain model."""

    def __init__(self, model: Any, planned: SweepPlan, batch_size: int) -> None:
        self.model, self.planned = model, planned
        examples = planned.examples
        # A prompt and its twin side by side, pairs of like length together.
        pairs = sorted(range(0, len(examples), 2), key=lambda i: len(examples[i]))
        ids = [index for first in pairs for index in (first, first + 1)]
        assert all(planned.parent.twins[i] == i + 1 for i in pairs)
        size = max(2, batch_size // 2 * 2)
        self.batches = [ids[i : i + size] for i in range(0, len(ids), size)]

    def run(self) -> dict[tuple[int, int], float]:
        found = {}
        for number, intervention in enumerate(self.planned.interventions, start=1):
            for ids in self.batches:
                handle = self._hook(intervention, ids)
                for example_id, diff in zip(ids, self._forward(ids), strict=True):
                    found[number, example_id] = float(diff)
                handle.remove()
        return found

    def _padded(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        examples = [self.planned.examples[i] for i in ids]
        lengths = torch.tensor([len(example) for example in examples])
        tokens = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
        for row, example in enumerate(examples):
            tokens[row, : len(example)] = torch.tensor(example.token_ids)
        return tokens, lengths

    def _forward(self, ids: list[int]) -> torch.Tensor:
        tokens, lengths = self._padded(ids)
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        with torch.no_grad():
            logits = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        last = logits[torch.arange(len(ids)), lengths - 1]
        examples = [self.planned.examples[i] for i in ids]
        rows = torch.arange(len(ids))
        right, wrong = ([getattr(e, k) for e in examples] for k in ("target_id", "foil_id"))
        return last[rows, right] - last[rows, wrong]

    def _hook(self, intervention: Any, ids: list[int]) -> Any:
        [layer] = intervention.layers
        module = self.model.model.layers[layer]
        config, twin = self.model.config, torch.arange(len(ids)) ^ 1
        top_k = config.num_experts_per_tok

        def weigh(logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
            weights = logits.softmax(-1).gather(-1, experts)
            return weights / weights.sum(-1, keepdim=True) if config.norm_topk_prob else weights

        def rerouted(route: Callable[..., Any]) -> Any:
            logits: list[torch.Tensor] = []
            # Kept until the experts are called, in the same layer.
            seen = module.mlp.gate.register_forward_hook(lambda _, __, out: logits.append(out[0]))

            def before(_: Any, args: Any) -> Any:
                x, experts, weights = args
                seen.remove()
                experts, weights = route(logits[0], experts, weights)
                return x, experts, weights

            return module.mlp.experts.register_forward_pre_hook(before)

        def without(logits: torch.Tensor, *_: Any) -> Any:
            logits = logits.index_fill(-1, torch.tensor([EXPERT]), -torch.inf)
            experts = logits.topk(top_k).indices
            return experts, weigh(logits, experts)

        def random(logits: torch.Tensor, experts: torch.Tensor, *_: Any) -> Any:
            chosen = experts.view(len(ids), -1, top_k).clone()
            for row, i in enumerate(ids):
                n = len(self.planned.examples[i])
                numbers = (intervention.params["seed"], intervention.params["draw"], layer, i)
                chosen[row, :n] = drawn_experts(*numbers, n, config.num_experts, top_k)
            chosen = chosen.view(-1, top_k)
            return chosen, weigh(logits, chosen)

        def swapped(_: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor) -> Any:
            both = (
                value.view(len(ids), -1, top_k)[twin].flatten(0, 1) for value in (experts, weights)
            )
            return tuple(both)

        match intervention.kind:
            case "ablate-experts":
                return rerouted(without)
            case "random-routing":
                return rerouted(random)
            case "uniform-weights":
                return rerouted(lambda _, e, w: (e, w.mean(-1, keepdim=True).expand_as(w)))
            case "swap-routing":
                return rerouted(swapped)
            case "knock-out-shared":
                return module.mlp.shared_expert.register_forward_hook(lambda _, __, out: out * 0)
        return module.register_forward_pre_hook(lambda _, args: (args[0][twin], *args[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen-moe-mini")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        captured = plan_language_capture(
            CaptureOptions(options.model, arrays=("residual_pre",)),
            partial(ioi_dataset, n=options.n, seed=0),
        )
        capture(captured, store)
        parent = open_parent(store, "qwen-ioi")
        resources = Resources(options.model, options.batch_size)
        planned = plan_sweep(parent, CHOICES, resources)
        dtype = getattr(torch, planned.dtype)
        plain = AutoModelForCausalLM.from_pretrained(planned.checkpoint.folder, dtype=dtype).eval()
        by_hooks = ByHooks(plain, planned, options.batch_size)
        seconds: dict[str, list[float]] = {"moedb": [], "hooks": []}
        with planned.open_engine() as engine:
            for each in range(options.rounds):
                # Another seed is another run, so nothing is there yet.
                fresh = plan_sweep(parent, replace(CHOICES, seed=each), resources)
                fresh = replace(fresh, open_engine=lambda: nullcontext(engine))
                begun = time.perf_counter()
                run_id = run_sweep(fresh, store).run_id
                seconds["moedb"].append(time.perf_counter() - begun)
                by_hooks.planned = fresh
                begun = time.perf_counter()
                expected = by_hooks.run()
                seconds["hooks"].append(time.perf_counter() - begun)
                files = store / "runs" / run_id / "tables" / "predictions" / "*.parquet"
                rows = duckdb.sql(
                    f"select condition_id, example_id, logit_diff from '{files}' "  # noqa: S608
                    "where condition_id > 0"
                ).fetchall()
                gaps = [abs(diff - expected[number, i]) for number, i, diff in rows]
                assert len(gaps) == len(expected)
                if dtype == torch.float32:
                    assert max(gaps) < 1e-2, max(gaps)
        best = {name: min(values) for name, values in seconds.items()}
        print(
            json.dumps(
                {
                    "model": options.model,
                    "layers": len({each.layers for each in planned.interventions}),
                    "conditions": len(planned.interventions),
                    "examples": len(planned.examples),
                    "batch_size": options.batch_size,
                    "moedb_seconds": round(best["moedb"], 2),
                    "hooks_seconds": round(best["hooks"], 2),
                    "hooks_per_moedb": round(best["hooks"] / best["moedb"], 2),
                    "largest_difference": float(np.max(gaps)),
                    "threads": torch.get_num_threads(),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
