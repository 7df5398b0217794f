"""Time a training step of a CIFAR MoE beside a plain loop over the same model.

Both take the same images (made up), batches, optimizer, schedule and precision; the plain loop is
what one would write by hand, with its own augmentation, and neither checks losses nor keeps
checkpoints. Rounds take turns, each in a process of its own; what counts is the time from one step
to the next, without the first ones. Printed are images a second, and the ratio of the medians.

    OMP_NUM_THREADS=2 python benchmarks/training.py --experts 5 --steps 12 --rounds 5
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from moedb.capture.jobs.cifar_moe.config import CifarTrainingConfig, cifar_moe_config
from moedb.capture.jobs.cifar_moe.images import ImageSet
from moedb.capture.jobs.cifar_moe.model import CifarMoE
from moedb.capture.jobs.cifar_moe.training.trial import train_cifar_moe
from moedb.capture.models.device import has_fast_bfloat16

WARM = 2
"""Steps of a round that do not count."""


class Clock:
    """When each step ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def begin(self, name: str, n_images: int, done: int) -> None:
        """A trial starts."""

    def advance(self, n_images: int, loss: float) -> None:
        """A step was taken."""
        self.moments.append(time.perf_counter())

    def epoch(self, name: str, line: dict[str, Any]) -> None:
        """An epoch ended."""

    def steps(self) -> list[float]:
        """Seconds of each step that counts."""
        return list(np.diff(self.moments)[WARM - 1 :])


def made_up(n_images: int) -> ImageSet:
    """Images of noise."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, draw.integers(0, 10, n_images))


def trained(config: CifarTrainingConfig, images: ImageSet, test: ImageSet) -> list[float]:
    """Seconds of moedb's steps."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        train_cifar_moe(config, images, test, Path(folder) / "trial", clock)
    return clock.steps()


def by_hand(config: CifarTrainingConfig, found: ImageSet) -> list[float]:
    """Seconds of the plain loop's steps."""
    torch.manual_seed(config.seed)
    model = CifarMoE(config.model)
    model.image_mean.fill_(0.5)
    model.image_std.fill_(0.25)
    head = [*model.moe.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": list(model.stages.parameters())}, {"params": head}],
        weight_decay=config.weight_decay,
        fused=True,
    )
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    steps = -(-len(labels) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[config.max_learning_rate, config.max_head_learning_rate],
        total_steps=steps,
    )
    clock = Clock()
    model.train()
    for batch in torch.randperm(len(labels)).split(config.batch_size):
        shown = images[batch]
        shown = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, shown.flip(2), shown)
        shown = shown.roll(tuple(torch.randint(-4, 5, (2,)).tolist()), dims=(1, 2))
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
            logits, routing = model(shown)
        loss = functional.cross_entropy(logits.float(), labels[batch])
        probabilities = routing.logits.float().softmax(-1).mean(0)
        shares = torch.bincount(routing.expert_ids, minlength=len(probabilities)) / len(batch)
        total = loss + config.aux_coefficient * len(shares) * (shares * probabilities).sum()
        total.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        clock.advance(len(batch), float(loss.detach()))
    return clock.steps()


def apart(side: Callable[..., list[float]], *given: object) -> list[float]:
    """What a side took in a process of its own: moedb has its process use larger pages."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(side, *given).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--variant", choices=["base", "short"], default="base")
    parser.add_argument("--experts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    config = CifarTrainingConfig(
        model=cifar_moe_config(given.variant, given.experts, gate="unweighted"),
        trial=0,
        seed=0,
        epochs=1,
        n_validation=0,
        autocast=has_fast_bfloat16("cpu"),
    )
    images = made_up((given.steps + WARM) * config.batch_size)
    test = made_up(2)
    print(
        f"{given.variant}, {given.experts} experts, batches of {config.batch_size}, "
        f"bf16 {config.autocast}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
        f"torch {torch.__version__}"
    )
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(given.rounds):
        plain += apart(by_hand, config, images)
        ours += apart(trained, config, images, test)
    for name, seconds in (("moedb", ours), ("plain loop", plain)):
        low, middle, high = (config.batch_size / np.quantile(seconds, q) for q in (0.9, 0.5, 0.1))
        print(f"{name}: {middle:,.0f} images/s (10 to 90 %: {low:,.0f} to {high:,.0f})")
    print(f"ratio of medians, moedb to plain loop: {np.median(ours) / np.median(plain):.3f}")


if __name__ == "__main__":
    main()
