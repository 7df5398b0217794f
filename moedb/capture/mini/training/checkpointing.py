"""The folder of a training run: its checkpoints, the finished model, and whose run it is.

What is written is either whole and on the disk, or not seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.training.optimization import MiniModel
from moedb.capture.models.training_checkpoints import (
    ELSEWHERE,
    load_checkpoint,
    optimizer_moments,
    read_state,
    read_summary,
    save_checkpoint,
    write_json,
)
from moedb.errors import UsageError
from moedb.store.files import sha256_of_file, sync_directory, sync_file

CHECKPOINTS = "checkpoints"
SUMMARY = "training.json"
FORMAT = 1


def run_identity(config: MiniTrainingConfig, corpus_path: str | Path) -> dict[str, Any]:
    """Return what makes two runs the same: the configuration and the corpus."""
    return {"config": config.model_dump(), "corpus_sha256": sha256_of_file(Path(corpus_path))}


def is_finished(output: Path, identity: dict[str, Any]) -> bool:
    """Whether a folder holds the finished run; a UsageError where it holds another one."""
    state = read_summary(output / SUMMARY)
    if state is None:
        return False
    _check_identity(output, state, identity)
    return True


def forget(output: Path) -> None:
    """Drop what a folder has of a run, so that it starts again."""
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    (output / SUMMARY).unlink(missing_ok=True)


def write_checkpoint(
    output: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write weights, optimizer and counters, and then drop the older checkpoints."""
    moments = optimizer_moments(optimizer, parameters)
    save_checkpoint(output / CHECKPOINTS, state["step"], parameters, moments, state)


def read_checkpoint(
    checkpoint: Path,
    output: Path,
    identity: dict[str, Any],
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Read a checkpoint of the same run into the parameters and the optimizer.

    Parameters
    ----------
    checkpoint : Path
        The folder of the checkpoint.
    output : Path
        The folder of the run.
    identity : dict
        What the run is, by `run_identity`.
    parameters : mapping of str to Parameter
        The model's parameters, overwritten.
    optimizer : Optimizer
        Its optimizer, overwritten.

    Returns
    -------
    dict
        The state that was written with them.

    Raises
    ------
    UsageError
        When the checkpoint is damaged or belongs to another run.
    """
    state = read_state(checkpoint)
    _check_identity(output, state, identity)
    load_checkpoint(checkpoint, parameters, parameters, optimizer)
    return state


def write_finished(model: MiniModel, tokenizer: Any, output: Path, state: dict[str, Any]) -> None:
    """Write the model in bf16 and the summary, and drop the checkpoints."""
    partial = output / ".partial-model"
    shutil.rmtree(partial, ignore_errors=True)
    model.config.use_cache = True
    model.eval().to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(str(partial))
    mode = (partial / "config.json").stat().st_mode & 0o777
    for file in sorted(partial.iterdir()):
        file.chmod(mode)  # safetensors makes its files private
        sync_file(file)
        file.replace(output / file.name)
    partial.rmdir()
    write_json(output / f".{SUMMARY}", state)
    sync_file(output / f".{SUMMARY}")
    (output / f".{SUMMARY}").replace(output / SUMMARY)
    sync_directory(output)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _check_identity(output: Path, state: Any, identity: dict[str, Any]) -> None:
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{output}: its training state has another format", ELSEWHERE)
    if state.get("corpus_sha256") != identity["corpus_sha256"]:
        raise UsageError(f"{output}: holds a run over another corpus", ELSEWHERE)
    found = state.get("config", {})
    for key, value in identity["config"].items():
        if found.get(key) != value:
            raise UsageError(
                f"{output}: holds a run with {key} {found.get(key)}, not {value}", ELSEWHERE
            )
