"""Trials of a CIFAR MoE, one after the other, each in its folder."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from moedb.capture.jobs.cifar_moe.config import (
    Augmentation,
    Balance,
    CifarTrainingConfig,
    Gate,
    Variant,
    cifar_moe_config,
)
from moedb.capture.jobs.cifar_moe.images import load_cifar10
from moedb.capture.jobs.cifar_moe.training.trial import BusyError, TrainingProgress, train_cifar_moe
from moedb.capture.models.device import chosen_device, has_fast_bfloat16
from moedb.errors import UsageError


def configure(
    variant: str,
    filters: str | None,
    *,
    seed: int,
    epochs: int,
    augmentation: Augmentation,
    gate: Gate,
    balance: Balance,
    aux_coefficient: float,
    device: str | None,
    autocast: bool | None,
) -> CifarTrainingConfig:
    """Resolve what a user chose about training; experts and trial are filled in later.

    Parameters
    ----------
    variant
        ``base`` or ``short``.
    filters
        Filters of each convolution with commas between; None for the variant's.
    seed, epochs
        Seed of trial 0; passes over the images.
    augmentation
        ``crop``, ``flip`` or ``none``.
    gate
        ``weighted`` or ``unweighted``.
    balance
        ``mean``, ``count`` or ``sum``.
    aux_coefficient
        Factor of the load balancing loss.
    device, autocast
        None for what suits the machine.

    Raises
    ------
    UsageError
        If ``filters`` does not fit the variant, ``aux_coefficient`` is no number that could be
        one, or there is no such device.
    """
    if not 0 <= aux_coefficient < math.inf:
        raise UsageError(
            f"--aux-coefficient {aux_coefficient}: expected a number from 0 on", "such as 1e-5"
        )
    kind = chosen_device(device).partition(":")[0]
    try:
        numbers = None if filters is None else tuple(int(part) for part in filters.split(","))
        model = cifar_moe_config(cast(Variant, variant), 2, numbers, gate)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--filters {filters}: {reason}", "one number for each convolution, such as 8,16,16,32"
        ) from error
    return CifarTrainingConfig(
        model=model,
        trial=0,
        seed=seed,
        epochs=epochs,
        augmentation=augmentation,
        balance=balance,
        aux_coefficient=aux_coefficient,
        device=kind,
        autocast=has_fast_bfloat16(kind) if autocast is None else autocast,
    )


def plan_trials(
    base: CifarTrainingConfig, experts: Sequence[int], trials: Sequence[int]
) -> list[CifarTrainingConfig]:
    """The trials of each number of experts, trial by trial; a trial's seed is seed + trial."""
    return [
        base.model_copy(
            update={
                "model": base.model.model_copy(update={"n_experts": n_experts}),
                "trial": trial,
                "seed": base.seed + trial,
            }
        )
        for trial in trials
        for n_experts in experts
    ]


def train_trials(
    base: CifarTrainingConfig,
    experts: Sequence[int],
    n_trials: int,
    data: Path | None,
    output: Path,
    progress: TrainingProgress | None = None,
) -> Iterator[tuple[Path, dict[str, Any] | BusyError]]:
    """Train every trial that is missing.

    Parameters
    ----------
    base
        The configuration; experts, trial and seed are set for each trial.
    experts
        Numbers of experts.
    n_trials
        Trials of each.
    data
        Where CIFAR-10 is; None for the hub.
    output
        The folder of the trials' folders.
    progress
        Hears how it goes on.

    Yields
    ------
    folder, outcome
        A trial's folder and its summary, or the error where another process is at it.

    Raises
    ------
    DatasetError, UsageError, ModelError
        As `load_cifar10` and `train_cifar_moe` do.
    """
    train, test = load_cifar10(data, "train"), load_cifar10(data, "test")
    for config in plan_trials(base, experts, range(n_trials)):
        folder = output / config.name
        try:
            yield folder, train_cifar_moe(config, train, test, folder, progress)
        except BusyError as busy:
            yield folder, busy
