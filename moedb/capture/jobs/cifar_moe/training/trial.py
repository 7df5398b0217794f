"""Training a CIFAR MoE: one trial, resumable at every epoch."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.nn import functional

from moedb.capture.jobs.cifar_moe.checkpoint import (
    check_identity,
    finished_summary,
    write_finished,
)
from moedb.capture.jobs.cifar_moe.config import CifarTrainingConfig
from moedb.capture.jobs.cifar_moe.images import ImageSet
from moedb.capture.jobs.cifar_moe.model import CifarMoE, balance_loss
from moedb.capture.jobs.cifar_moe.training.augmentation import Views
from moedb.capture.models.device import keep_freed_memory, use_large_pages
from moedb.capture.models.training_checkpoints import (
    last_checkpoint,
    load_checkpoint,
    optimizer_moments,
    read_state,
    save_checkpoint,
)
from moedb.errors import ModelError, MoedbError, UsageError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
EVALUATION_BATCH = 500


class TrainingProgress(Protocol):
    """Who wants to hear how training goes on."""

    def begin(self, name: str, n_images: int, done: int) -> None:
        """A trial starts: images over all epochs, and those trained on earlier."""

    def advance(self, n_images: int, loss: float) -> None:
        """A step was taken."""

    def epoch(self, name: str, line: dict[str, Any]) -> None:
        """An epoch ended; ``line`` has its number, its loss and the validation accuracy."""


class BusyError(MoedbError):
    """Another process is training this trial."""


def train_cifar_moe(
    config: CifarTrainingConfig,
    train: ImageSet,
    test: ImageSet,
    folder: Path,
    progress: TrainingProgress | None = None,
) -> dict[str, Any]:
    """Train one trial, or what is left of it.

    A run that was stopped continues from the last whole epoch as if it had not been; on a finished
    one this returns at once.

    Parameters
    ----------
    config
        What to train.
    train, test
        The images; the last ``n_validation`` of ``train`` are held out.
    folder
        Where the weights, their configuration and, until the end, the checkpoints go.
    progress
        Hears how it goes on.

    Returns
    -------
    dict
        The summary that lies beside the weights: accuracies, history, environment.

    Raises
    ------
    UsageError
        If the folder holds another run, or there are too few images.
    BusyError
        If another process is training into the folder.
    ModelError
        If the loss is no longer a number.
    """
    if len(train) < config.n_validation + 2:
        raise UsageError(
            f"{len(train):,} training images, of which {config.n_validation:,} are held out: "
            "too few are left"
        )
    identity = {
        "config": config.model_dump(mode="json"),
        "train_sha256": train.sha256,
        "test_sha256": test.sha256,
    }
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            found = finished_summary(folder, identity)
            return found or _Run(config, identity, train, test, folder).complete(progress)
    except Timeout as error:
        raise BusyError(f"{folder}: another process is training this trial") from error


@dataclass(frozen=True)
class _Split:
    images: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, found: ImageSet, part: slice, device: str) -> _Split:
        return cls(
            torch.from_numpy(found.images[part]).to(device),
            torch.from_numpy(found.labels[part]).to(device),
        )


class _Run:
    """The state of a trial, and what it does at an epoch."""

    def __init__(
        self,
        config: CifarTrainingConfig,
        identity: dict[str, Any],
        train: ImageSet,
        test: ImageSet,
        folder: Path,
    ) -> None:
        use_large_pages()
        keep_freed_memory()
        n_train = len(train) - config.n_validation
        self.config, self.identity, self.folder = config, identity, folder
        self.train = _Split.of(train, slice(n_train), config.device)
        self.validation = _Split.of(train, slice(n_train, None), config.device)
        self.test = _Split.of(test, slice(None), config.device)
        torch.manual_seed(config.seed)
        self.model = CifarMoE(config.model)
        self._normalize(train.images[:n_train])
        self.model.to(config.device)
        self.parameters = dict(self.model.named_parameters())
        # No normalization follows the head's weights: the convolutions' rate throws it back.
        head = [*self.model.moe.parameters(), *self.model.classifier.parameters()]
        self.optimizer = torch.optim.AdamW(
            [{"params": list(self.model.stages.parameters())}, {"params": head}],
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.steps = -(-n_train // config.batch_size)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=[config.max_learning_rate, config.max_head_learning_rate],
            total_steps=self.steps * config.epochs,
        )
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []

    def _normalize(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Have the model bring the training images to mean 0 and standard deviation 1."""
        counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)])
        levels, total = np.arange(256) / 255, counts.sum(axis=1)
        mean = counts @ levels / total
        std = np.sqrt((counts @ levels**2 / total - mean**2).clip(0))
        self.model.image_mean.copy_(torch.from_numpy(mean))
        self.model.image_std.copy_(torch.from_numpy(std).clamp_min(1e-6))

    def complete(self, progress: TrainingProgress | None) -> dict[str, Any]:
        """Train the epochs that are missing and write the model."""
        checkpoint = last_checkpoint(self.folder / CHECKPOINTS)
        if checkpoint is not None:
            self._restore(checkpoint)
        n_images = len(self.train.labels)
        if progress is not None:
            progress.begin(self.config.name, n_images * self.config.epochs, n_images * self.epoch)
        while self.epoch < self.config.epochs:
            self._train_epoch(progress)
            self._evaluate_epoch()
            if progress is not None:
                progress.epoch(self.config.name, self.history[-1])
            if self.epoch < self.config.epochs:
                self._save()
        accuracy, shares = self._accuracy(self.test)
        summary = {
            **self._state(),
            "test_accuracy": accuracy,
            "test_expert_shares": shares,
            "n_test": len(self.test.labels),
        }
        write_finished(self.model, self.config, self.folder, summary)
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        return summary

    def _train_epoch(self, progress: TrainingProgress | None) -> None:
        config = self.config
        started = time.monotonic()
        # Its own generator for each epoch: a resumed run draws what an undisturbed one draws.
        draw = np.random.default_rng([config.seed, self.epoch])
        order = torch.from_numpy(draw.permutation(len(self.train.labels))).to(config.device)
        views = Views.drawn(draw, config.augmentation, len(order), config.device)
        self.model.train()
        losses = []
        for batch in torch.split(order, config.batch_size):
            if len(batch) == 1:  # left over, with nothing to be normalized over
                continue
            loss = self._step(views.of(self.train.images, batch), self.train.labels[batch])
            losses.append(loss * len(batch))
            if progress is not None:
                progress.advance(len(batch), loss)
        self.epoch += 1
        self.seconds += time.monotonic() - started
        self.history.append({"epoch": self.epoch, "train_loss": sum(losses) / len(order)})

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        config = self.config
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            logits, routing = self.model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        total = loss + config.aux_coefficient * balance_loss(routing, config.balance)
        if not torch.isfinite(total):
            raise ModelError(
                f"{config.name}: the loss is {total.item()} in epoch {self.epoch + 1}",
                "train with another --seed",
            )
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _evaluate_epoch(self) -> None:
        line = self.history[-1]
        line["seconds"] = round(self.seconds, 1)
        if len(self.validation.labels):
            line["validation_accuracy"], line["expert_shares"] = self._accuracy(self.validation)
        logger.info(
            "%s epoch %d/%d %s",
            self.config.name,
            self.epoch,
            self.config.epochs,
            " ".join(f"{key} {value}" for key, value in line.items() if key != "epoch"),
        )

    def _accuracy(self, split: _Split) -> tuple[float, list[float]]:
        """Accuracy over a split, and the share of its images that each expert gets."""
        self.model.eval()
        correct = 0
        counts = torch.zeros(self.config.model.n_experts, dtype=torch.long)
        with torch.no_grad():
            for images, labels in zip(
                torch.split(split.images, EVALUATION_BATCH),
                torch.split(split.labels, EVALUATION_BATCH),
                strict=True,
            ):
                logits, routing = self.model(images)
                correct += int((logits.argmax(dim=-1) == labels).sum())
                counts += torch.bincount(routing.expert_ids.cpu(), minlength=len(counts))
        n_images = len(split.labels)
        return correct / n_images, (counts / n_images).tolist()

    def _state(self) -> dict[str, Any]:
        return {
            **self.identity,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
            "environment": {
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "cpus": os.cpu_count(),
                "machine": platform.machine(),
            },
        }

    def _save(self) -> None:
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        schedule = {
            key: value
            for key, value in self.schedule.state_dict().items()
            if isinstance(value, (int, float, list))
        }
        save_checkpoint(
            self.folder / CHECKPOINTS,
            self.epoch,
            self.model.state_dict(),
            optimizer_moments(self.optimizer, self.parameters),
            {**self._state(), "optimizer": groups, "schedule": schedule},
        )

    def _restore(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        check_identity(self.folder, state, self.identity)
        load_checkpoint(checkpoint, self.model.state_dict(), self.parameters, self.optimizer)
        for group, stored in zip(self.optimizer.param_groups, state["optimizer"], strict=True):
            group.update(stored)
            group["betas"] = tuple(stored["betas"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.history = state["history"]
        logger.info("%s continues after epoch %d", self.config.name, self.epoch)
