"""Checkpoints of a training run: each is whole and on the disk, or not seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moedb.errors import UsageError
from moedb.store.files import sync_directory, sync_file

ELSEWHERE = "Train into another folder, or without resuming."

Tensors = Mapping[str, torch.Tensor]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder of them, if there is one."""
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    return found[-1] if found else None


def save_checkpoint(
    folder: Path, step: int, weights: Tensors, moments: Tensors, state: Mapping[str, Any]
) -> None:
    """Write weights, the optimizer's moments and counters, and then drop the older checkpoints."""
    folder.mkdir(exist_ok=True)
    target = folder / f"step-{step:08d}"
    partial = folder / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({name: t.detach().contiguous() for name, t in weights.items()}, _weights(partial))
    save_file({name: t.contiguous() for name, t in moments.items()}, _moments(partial))
    write_json(partial / "state.json", state)
    for file in partial.iterdir():
        sync_file(file)
    sync_directory(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync_directory(folder)
    for old in folder.iterdir():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the counters of a checkpoint.

    Raises
    ------
    UsageError
        If they cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error
    return state


def load_checkpoint(
    checkpoint: Path,
    weights: Tensors,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Read a checkpoint into a model's tensors and into its optimizer.

    Parameters
    ----------
    checkpoint
        The checkpoint's folder.
    weights
        The model's tensors, overwritten.
    parameters
        Those of them that ``optimizer`` descends, overwritten in it.
    optimizer
        An AdamW.

    Raises
    ------
    UsageError
        If the checkpoint is damaged or holds other tensors.
    """
    try:
        stored, moments = load_file(_weights(checkpoint)), load_file(_moments(checkpoint))
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, error) from error
    keys = ("step", "exp_avg", "exp_avg_sq")
    expected = {f"{name}:{key}" for name in parameters for key in keys}
    if set(stored) != set(weights) or set(moments) != expected:
        raise UsageError(
            f"{checkpoint}: holds other tensors than the model, from another version perhaps",
            ELSEWHERE,
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(stored[name])
        for name, parameter in parameters.items():
            # Moments lie in memory as their parameter does: sums over them round the same.
            optimizer.state[parameter] = {
                key: torch.empty_like(parameter).copy_(moments[f"{name}:{key}"])
                if moments[f"{name}:{key}"].shape == parameter.shape and key != "step"
                else moments[f"{name}:{key}"]
                for key in keys
            }


def optimizer_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Return an AdamW's state as tensors that are named ``PARAMETER:KEY``."""
    return {
        f"{name}:{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON for a reader."""
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _weights(checkpoint: Path) -> str:
    return str(checkpoint / "weights.safetensors")


def _moments(checkpoint: Path) -> str:
    return str(checkpoint / "optimizer.safetensors")


def _damaged(checkpoint: Path, error: Exception) -> UsageError:
    return UsageError(f"{checkpoint}: damaged checkpoint ({error})", ELSEWHERE)
