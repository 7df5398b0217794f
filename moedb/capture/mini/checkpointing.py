"""The folder of a training run: its checkpoints, the finished model, and whose run it is.

What is written is either whole and on the disk, or not seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, Qwen2MoeForCausalLM

from moedb.capture.mini.config import MiniTrainingConfig
from moedb.errors import UsageError
from moedb.store.files import sha256_of_file, sync_directory, sync_file

CHECKPOINTS = "checkpoints"
SUMMARY = "training.json"
FORMAT = 1


def run_identity(config: MiniTrainingConfig, corpus_path: str | Path) -> dict[str, Any]:
    """Return what makes two runs the same: the configuration and the corpus."""
    return {"config": config.model_dump(), "corpus_sha256": sha256_of_file(Path(corpus_path))}


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder of them, if there is one."""
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    return found[-1] if found else None


def is_finished(output: Path, identity: dict[str, Any]) -> bool:
    """Whether a folder holds the finished run; a UsageError where it holds another one."""
    try:
        state = json.loads((output / SUMMARY).read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise UsageError(f"{output / SUMMARY}: cannot be read ({error})") from error
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
    folder = output / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    target = folder / f"step-{state['step']:08d}"
    partial = folder / f".partial-{state['step']:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    moments = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            moments[f"{name}:{key}"] = value.contiguous()
    weights = {name: p.detach().contiguous() for name, p in parameters.items()}
    save_file(weights, str(partial / "weights.safetensors"))
    save_file(moments, str(partial / "optimizer.safetensors"))
    _write_json(partial / "state.json", state)
    for file in partial.iterdir():
        sync_file(file)
    sync_directory(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync_directory(folder)
    for old in folder.iterdir():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


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
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
        weights = load_file(str(checkpoint / "weights.safetensors"))
        moments = load_file(str(checkpoint / "optimizer.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"{checkpoint}: damaged checkpoint ({error})",
            hint="Train into another folder, or without resuming.",
        ) from error
    _check_identity(output, state, identity)
    keys = ("step", "exp_avg", "exp_avg_sq")
    expected = {f"{name}:{key}" for name in parameters for key in keys}
    if set(weights) != set(parameters) or set(moments) != expected:
        raise UsageError(
            f"{checkpoint}: holds other parameters than the model, from another version of "
            "transformers perhaps",
            hint="Train into another folder, or without resuming.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {key: moments[f"{name}:{key}"] for key in keys}
    return state


def write_finished(
    model: Qwen2MoeForCausalLM, tokenizer: Any, output: Path, state: dict[str, Any]
) -> None:
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
    _write_json(output / f".{SUMMARY}", state)
    sync_file(output / f".{SUMMARY}")
    (output / f".{SUMMARY}").replace(output / SUMMARY)
    sync_directory(output)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _check_identity(output: Path, state: Any, identity: dict[str, Any]) -> None:
    hint = "Train into another folder, or without resuming."
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{output}: its training state has another format", hint=hint)
    if state.get("corpus_sha256") != identity["corpus_sha256"]:
        raise UsageError(f"{output}: holds a run over another corpus", hint=hint)
    found = state.get("config", {})
    for key, value in identity["config"].items():
        if found.get(key) != value:
            raise UsageError(
                f"{output}: holds a run with {key} {found.get(key)}, not {value}", hint=hint
            )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
