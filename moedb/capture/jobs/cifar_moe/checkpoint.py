"""The folder of a trained CIFAR MoE: weights, shape, and how they came about."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moedb.capture.jobs.cifar_moe.config import CifarMoEConfig, CifarRecipe, CifarTrainingConfig
from moedb.capture.jobs.cifar_moe.model import CifarMoE
from moedb.capture.models.training_checkpoints import ELSEWHERE, read_summary, write_json
from moedb.errors import ModelError, UsageError
from moedb.store.files import sync_directory, sync_file

MODEL_TYPE = "cifar-moe"
EARLIER = {"gate": "weighted", "balance": "mean"}
"""What a run has that was trained before there was a choice, and so does not say."""
CONFIG, WEIGHTS, SUMMARY = "config.json", "model.safetensors", "training.json"


def finished_summary(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the finished run in a folder, None where it is not finished.

    Raises
    ------
    UsageError
        If the folder holds another run.
    """
    summary: dict[str, Any] | None = read_summary(folder / SUMMARY)
    if summary is not None:
        check_identity(folder, summary, identity)
    return summary


def check_identity(folder: Path, state: Any, identity: dict[str, Any]) -> None:
    """Refuse a state that is of another configuration or of other images.

    Raises
    ------
    UsageError
        If it is; the message names the first difference.
    """
    if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
        raise UsageError(f"{folder}: its training state cannot be understood", ELSEWHERE)
    found = {**EARLIER, **_flattened(state["config"])}
    for key, value in _flattened(identity["config"]).items():
        if found.get(key) != value:
            raise UsageError(
                f"{folder}: holds a run with {key} {found.get(key)}, not {value}", ELSEWHERE
            )
    for key in ("train_sha256", "test_sha256"):
        if state.get(key) != identity[key]:
            raise UsageError(f"{folder}: holds a run over other images", ELSEWHERE)


def _flattened(config: dict[str, Any]) -> dict[str, Any]:
    rest = dict(config)
    shape = rest.pop("model", None)
    return {**shape, **rest} if isinstance(shape, dict) else rest


def write_finished(
    model: CifarMoE, config: CifarTrainingConfig, folder: Path, summary: dict[str, Any]
) -> None:
    """Write weights and shape and then, as the sign that all is there, the summary."""
    partial = folder / ".partial-model"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, str(partial / WEIGHTS), metadata={"format": "pt"})
    shape = {
        "model_type": MODEL_TYPE,
        "architectures": [type(model).__name__],
        "trial": config.trial,
        "seed": config.seed,
        **config.model_dump(mode="json", include=set(CifarRecipe.model_fields)),
        **config.model.model_dump(mode="json"),
    }
    write_json(partial / CONFIG, shape)
    write_json(partial / SUMMARY, summary)
    mode = (partial / CONFIG).stat().st_mode & 0o777
    (partial / WEIGHTS).chmod(mode)  # safetensors makes its files private
    for name in (CONFIG, WEIGHTS, SUMMARY):
        sync_file(partial / name)
        (partial / name).replace(folder / name)
    partial.rmdir()
    sync_directory(folder)


def load_cifar_moe(folder: Path) -> tuple[CifarMoE, dict[str, Any]]:
    """Load a trained CIFAR MoE for inference.

    Parameters
    ----------
    folder
        Its folder.

    Returns
    -------
    model, config
        The model in float32 on the CPU, and what its config.json says.

    Raises
    ------
    ModelError
        If the folder holds none, or one that is damaged.
    """
    config = read_config(folder)
    fields = {key: config[key] for key in CifarMoEConfig.model_fields if key in config}
    try:
        model = CifarMoE(CifarMoEConfig(**fields))
        model.load_state_dict(load_file(str(folder / WEIGHTS)))
    except ValidationError as error:
        raise ModelError(f"{folder / CONFIG}: {_first(error)}") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise ModelError(f"the weights in {folder} cannot be loaded: {reason}") from error
    return model.eval(), config


def read_recipe(folder: Path, config: dict[str, Any]) -> CifarRecipe:
    """How a model was trained, by its ``config``; by its summary where it is an earlier one.

    Raises
    ------
    ModelError
        If neither says.
    """
    path = folder / CONFIG
    stored: Any = config
    if "aux_coefficient" not in config:  # the summary had it from the start
        path = folder / SUMMARY
        try:
            summary = read_summary(path)
        except UsageError as error:
            raise ModelError(error.message) from error
        stored = summary.get("config") if isinstance(summary, dict) else None
        if not isinstance(stored, dict) or "aux_coefficient" not in stored:
            raise ModelError(f"{path}: does not say how the model was trained")
    try:
        return CifarRecipe.model_validate(stored)
    except ValidationError as error:
        raise ModelError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "shape"
    return f"{where}: {first['msg']}"


def read_config(folder: Path) -> dict[str, Any]:
    """What the config.json of a CIFAR MoE's folder says.

    Raises
    ------
    ModelError
        If there is none, or it is of another kind of model.
    """
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} holds no CIFAR MoE: it has no {CONFIG}", "moedb train cifar-moe -o FOLDER"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG}: cannot be read ({error})") from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise ModelError(
            f"{folder} holds a model of type {kind!r}, expected {MODEL_TYPE}",
            "moedb train cifar-moe -o FOLDER trains one",
        )
    return config
