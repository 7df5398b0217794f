"""What a capture costs beside a plain forward, and beside what a user would write instead.

    python benchmarks/capture.py [--prompts 400] [--rounds 3]

A random Qwen2-MoE of some 450 M parameters runs over the same batches of IOI prompts in each way,
in turn, in one process; loading is left out. The figures are medians over the rounds: seconds by
the clock, and seconds of all cores together, which other work on the machine disturbs less.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nnsight
import torch
from transformers import AutoTokenizer, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moedb.capture.jobs.language import plan_language_capture, token_ids
from moedb.capture.jobs.qwen_ioi.job import ioi_dataset
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.device import use_large_pages
from moedb.capture.models.loading.pretrained import load_model
from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan
from moedb.capture.pipeline.running import capture, like_lengths

BATCH = 32


def make_model(folder: Path) -> int:
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    # The proportions of Qwen1.5-MoE-A2.7B at half its width: how much is written for each
    # floating-point operation depends on the width.
    config = Qwen2MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
        moe_intermediate_size=704,
        shared_expert_intermediate_size=2816,
        num_experts=60,
        num_experts_per_tok=4,
    )
    torch.manual_seed(0)
    model = Qwen2MoeForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def padded_batches(planned: CapturePlan) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches that the capture runs, unit by unit."""
    batches = []
    for unit in planned.units:
        examples = planned.dataset.examples[unit.first_example : unit.end_example]
        for indices in like_lengths([len(e) for e in examples], BATCH):
            ids = [token_ids(examples[index]) for index in indices]
            longest = max(map(len, ids))
            mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i in ids])
            padded = torch.tensor([i + [0] * (longest - len(i)) for i in ids])
            batches.append((padded, mask))
    return batches


def plain(model: Any, batches: list[Any]) -> None:
    with torch.no_grad():
        for ids, mask in batches:
            model(input_ids=ids, attention_mask=mask, use_cache=False)


def with_moedb(planned: CapturePlan, opened: Any, folder: Path) -> None:
    outcome = capture(replace(planned, open_model=lambda arrays: nullcontext(opened)), folder)
    assert outcome.units_missing == 0


@contextmanager
def hooked(modules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a user would write: keep each module's output until the batch is over."""
    kept: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: kept.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def with_hooks(model: Any, names: list[str], batches: list[Any], folder: Path) -> None:
    modules = {name: model.get_submodule(name) for name in names}
    with hooked(modules) as kept, torch.no_grad():
        for index, (ids, mask) in enumerate(batches):
            model(input_ids=ids, attention_mask=mask, use_cache=False)
            torch.save(dict(kept), folder / f"{index}.pt")


def with_nnsight(model: Any, names: list[str], batches: list[Any], folder: Path) -> None:
    wrapped = nnsight.NNsight(model)
    envoys = [wrapped.get(name) for name in names]
    for index, (ids, mask) in enumerate(batches):
        with (
            torch.no_grad(),
            wrapped.trace(input_ids=ids, attention_mask=mask, use_cache=False),
        ):
            saved = nnsight.save([])
            for envoy in envoys:
                saved.append(envoy.output)
        torch.save(list(saved), folder / f"{index}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    use_large_pages()  # for the ways that are not moedb's too
    work = Path(tempfile.mkdtemp(prefix="moedb-benchmark-"))
    try:
        measure(work, arguments.prompts, arguments.rounds)
    finally:
        shutil.rmtree(work)


def measure(work: Path, n_prompts: int, n_rounds: int) -> None:
    n_parameters = make_model(work / "model")
    make = partial(ioi_dataset, n=n_prompts, seed=0)

    def plan(*arrays: str) -> CapturePlan:
        options = CaptureOptions(str(work / "model"), arrays=arrays, batch_size=BATCH)
        return plan_language_capture(options, make)

    routing, outputs = plan("none"), plan("expert_outputs")
    batches = padded_batches(routing)
    with routing.open_model({}) as opened:
        traced = opened.traced
        model = traced.model
        routers = [wiring.router_path for wiring in traced.wiring.blocks]
        taps = [read.path for read in traced.wiring.reads if read.role == "expert_outputs"]
        both = [name for pair in zip(routers, taps, strict=True) for name in pair]
        untouched = load_model(find_checkpoint(str(work / "model")), "float32", "cpu")
        ways: dict[str, Callable[[Path], None]] = {
            "plain forward": lambda folder: plain(untouched, batches),
            "moedb, routing": partial(with_moedb, routing, opened),
            "moedb, routing and expert outputs": partial(with_moedb, outputs, opened),
            "hooks and torch.save, routing": partial(with_hooks, model, routers, batches),
            "hooks and torch.save, both": partial(with_hooks, model, both, batches),
            "nnsight and torch.save, routing": partial(with_nnsight, model, routers, batches),
            "nnsight and torch.save, both": partial(with_nnsight, model, both, batches),
        }
        plain(untouched, batches[:2])
        plain(model, batches[:2])
        clock: dict[str, list[float]] = {name: [] for name in ways}
        cores: dict[str, list[float]] = {name: [] for name in ways}
        sizes: dict[str, int] = {}
        for _ in range(n_rounds):
            for name, way in ways.items():
                folder = work / "out"
                folder.mkdir()
                started = time.perf_counter(), time.process_time()
                way(folder)
                clock[name].append(time.perf_counter() - started[0])
                cores[name].append(time.process_time() - started[1])
                print(f"{name}: {clock[name][-1]:.1f} s", file=sys.stderr, flush=True)
                sizes[name] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                shutil.rmtree(folder)
    print(
        f"{n_parameters / 1e6:.0f} M parameters, {routing.estimate.n_tokens:,} tokens, batches of "
        f"{BATCH}, {torch.get_num_threads()} threads, median of {n_rounds}"
    )
    for name in ways:
        figures = [relative(found[name], found["plain forward"]) for found in (clock, cores)]
        print(f"{name:36} {figures[0]}   cores {figures[1]} {sizes[name] / 1e6:8.1f} MB")


def relative(seconds: list[float], plain_seconds: list[float]) -> str:
    """The median, in seconds and relative to the plain forward's, and the range."""
    base = statistics.median(plain_seconds)
    middle = statistics.median(seconds)
    spread = f"{min(seconds) / base:.2f}-{max(seconds) / base:.2f}"
    return f"{middle:6.1f} s {middle / base:5.2f} ({spread})"


if __name__ == "__main__":
    main()
