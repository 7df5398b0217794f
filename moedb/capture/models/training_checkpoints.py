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
from moedb.store.files import make_directories, sync_directory, sync_file

ELSEWHERE = "Train into another folder, or remove this one."

Tensors = Mapping[str, torch.Tensor]

_AVERAGES = ("exp_avg", "exp_avg_sq")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder of them, if there is one."""
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    return found[-1] if found else None


def read_summary(path: Path) -> Any:
    """Return what a finished run's summary says, None where there is none.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", ELSEWHERE) from error


def save_checkpoint(
    folder: Path, step: int, weights: Tensors, moments: Tensors, state: Mapping[str, Any]
) -> None:
    """Write weights, the optimizer's moments and counters, and then drop the older checkpoints."""
    make_directories(folder)
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
    # One that had no gradient yet, as an expert that no image went to, has no moments either.
    moved = {name: p for name, p in parameters.items() if f"{name}:step" in moments}
    expected = {
        f"{name}:{key}": parameter.shape if key in _AVERAGES else torch.Size()
        for name, parameter in moved.items()
        for key in ("step", *_AVERAGES)
    }
    if _shapes(stored) != _shapes(weights) or _shapes(moments) != expected:
        raise UsageError(
            f"{checkpoint}: holds other tensors than the model, from another version of moedb or "
            "of transformers perhaps",
            ELSEWHERE,
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(stored[name])
        for name, parameter in moved.items():
            # A fused AdamW counts its steps where the parameter is. The averages lie in memory as
            # the parameter does: an AdamW rounds differently over strides that differ.
            state = {"step": moments[f"{name}:step"].to(parameter.device)}
            for key in _AVERAGES:
                state[key] = torch.empty_like(parameter).copy_(moments[f"{name}:{key}"])
            optimizer.state[parameter] = state


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


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _weights(checkpoint: Path) -> str:
    return str(checkpoint / "weights.safetensors")


def _moments(checkpoint: Path) -> str:
    return str(checkpoint / "optimizer.safetensors")


def _damaged(checkpoint: Path, error: Exception) -> UsageError:
    return UsageError(f"{checkpoint}: damaged checkpoint ({error})", ELSEWHERE)
