"""Finding a model, hashing it, loading it: the embedded one, a local folder, or the hub's.

Only safetensors are read, and no code that comes with a checkpoint is run.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from moedb.capture.models.device import has_fast_bfloat16
from moedb.capture.models.hub import hub_failure, tidy_output
from moedb.capture.models.placement import DEVICE_MAPS
from moedb.capture.models.safe_config import WEIGHT_INDEX, WITHOUT_CODE, read_config
from moedb.errors import ModelError, ModelNotFoundError, UsageError, did_you_mean
from moedb.store.files import sha256_of_file

EMBEDDED_MODEL = "qwen-moe-mini"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
HUB_COPIES = ("*/*", "consolidated*.safetensors")
"""What is fetched of a model on the hub, and what of that is not: a repository may hold the same
weights again for other programs, in folders (``original/``) or in Mistral's own format."""

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

CODE_IS_NOT_RUN = (
    "it comes with code of its own (auto_map), which moedb does not run; a newer transformers may "
    "have the model: pip install -U 'transformers<6'"
)

"""The ways in which transformers spreads a model's layers over several devices."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine's disk.

    Attributes
    ----------
    name
        What the user asked for, or the folder's name.
    folder
        Where it is.
    revision
        The hub's commit, if it came from there.
    sha256
        Hash over its configuration and weights.
    """

    name: str
    folder: Path
    revision: str | None
    sha256: str


def find_checkpoint(model: str) -> Checkpoint:
    """Resolve ``model``: the embedded model's name, a local folder, or a hub id.

    Raises
    ------
    ModelNotFoundError
        If there is no such folder, or the hub cannot be reached or does not know the id.
    ModelError
        If the folder is no safetensors checkpoint.
    """
    if model == EMBEDDED_MODEL:
        folder = Path(str(resources.files("moedb.capture.mini") / "data" / EMBEDDED_MODEL))
        return _checkpoint(EMBEDDED_MODEL, folder, None)
    path = Path(model).expanduser()
    if path.is_dir():
        return local_checkpoint(path)
    if path.exists() or path.is_absolute() or model.startswith((".", "~")):
        raise ModelNotFoundError(
            f"the model folder {model} does not exist"
            if not path.exists()
            else f"{model} is a file; a model is a folder with config.json and *.safetensors",
            f"--model FOLDER, a hub id, or {EMBEDDED_MODEL} (the default)",
        )
    folder, revision = _download(model)
    return _checkpoint(model, folder, revision)


def local_checkpoint(folder: Path) -> Checkpoint:
    """Describe the checkpoint in a folder.

    Raises
    ------
    ModelError
        If the folder is no safetensors checkpoint.
    """
    return _checkpoint(folder.resolve().name, folder.resolve(), None)


def _download(model: str) -> tuple[Path, str]:
    """Fetch a hub id, or find it in the hub's cache on this machine.

    Raises
    ------
    ModelNotFoundError
        If the hub does not give it.
    ModelError
        If it has no safetensors; what else it has is not downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    tidy_output()
    try:
        folder = Path(
            snapshot_download(model, allow_patterns=[*HUB_FILES], ignore_patterns=[*HUB_COPIES])
        )
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{model!r} is neither a folder nor a hub id (OWNER/NAME)",
            f"--model FOLDER, a hub id, or {did_you_mean(model, [EMBEDDED_MODEL])}",
        ) from error
    except Exception as error:  # every way in which a network can fail
        failure = hub_failure(error, model, "model")
        elsewhere = (
            f"without a network: hf download {model} --local-dir FOLDER on a machine that has one, "
            f"then --model FOLDER; or leave --model out for {EMBEDDED_MODEL}"
        )
        remedies = [failure.remedy] if failure.remedy else []
        if failure.is_unreachable or not remedies:
            remedies.append(elsewhere)
        raise ModelNotFoundError(
            f"cannot fetch the model {model!r}: it is no folder here, not in the hub's cache, "
            f"and the hub did not give it ({failure.reason})",
            "; ".join(remedies),
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"the hub's {model} has no *.safetensors; weights in pickle (*.bin, *.pt) or GGUF are "
            "not read, and were not downloaded",
            "name a model or a copy of it in safetensors; or load it with transformers, "
            "save_pretrained(FOLDER), and --model FOLDER",
        )
    return folder, folder.name


def _checkpoint(name: str, folder: Path, revision: str | None) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json: it is not a model folder",
            "a model folder holds config.json, tokenizer files and *.safetensors",
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter beside the model (adapter_config.json); whether it would "
            "be applied depends on what is installed",
            "merge it (merge_and_unload of peft) and save_pretrained(FOLDER), or move its files",
        )
    paths = [folder / "config.json", *weight_files(folder)]
    digest = hashlib.sha256()
    # Hashing lets other threads run; twice as many, since some wait for the disk.
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        for path, file_digest in zip(paths, pool.map(sha256_of_file, paths), strict=True):
            digest.update(f"{path.name}:{file_digest}\n".encode())
    return Checkpoint(name, folder, revision, digest.hexdigest())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint's folder.

    Raises
    ------
    ModelError
        If there are none, or some that its index names are missing.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / WEIGHT_INDEX
    if index.is_file():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            needed = {str(name) for name in weight_map.values()}
        except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
            raise ModelError(f"{index} is not a weight index: {error}") from error
        missing = sorted(needed - {path.name for path in files})
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(needed)} weight files: {missing[0]}, ...",
                "download the checkpoint again",
            )
    if not files:
        pickled = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt")])
        found = f" (found {pickled[0]}, which is pickle and is not read)" if pickled else ""
        raise ModelError(
            f"{folder} has no *.safetensors: a model folder without weights{found}",
            "download the weights, or save the model with save_pretrained(FOLDER)",
        )
    return files


def load_config(checkpoint: Checkpoint) -> Any:
    """Load the checkpoint's configuration.

    Raises
    ------
    ModelError
        If transformers does not know it, or it cannot be had without code that comes with it.
    """
    try:
        config = read_config(checkpoint.folder)
        text = config.get_text_config()
    except ModelError as error:
        raise ModelError(f"{checkpoint.name}: {error.message}", error.hint) from error
    except Exception as error:  # the file is a stranger's, and each model family checks its own way
        raise ModelError(
            f"the configuration of {checkpoint.name} cannot be read: {_first_line(error)}"
        ) from error
    # Models of text and images put this id where an image is, even where none is; any will do.
    if text is not config and getattr(text, "pad_token_id", 0) is None:
        text.pad_token_id = 0
    return config


def load_skeleton(checkpoint: Checkpoint) -> PreTrainedModel:
    """Build the checkpoint's model without its weights: shapes only, in no memory."""
    config = load_config(checkpoint)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # each model family builds itself of a stranger's numbers
        raise ModelError(
            f"{checkpoint.name} is not a causal language model that transformers knows: "
            f"{_first_line(error)}",
            CODE_IS_NOT_RUN if getattr(config, "auto_map", None) else None,
        ) from error


def load_model(checkpoint: Checkpoint, dtype: str, device: str) -> PreTrainedModel:
    """Load the checkpoint for inference.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    dtype
        ``float32``, ``bfloat16`` or ``float16``.
    device
        A torch device, such as ``cpu`` or ``cuda:0``, or one of ``DEVICE_MAPS``, by which
        transformers spreads the layers over the devices that there are.

    Raises
    ------
    ModelError
        If the weights do not fit the configuration or cannot be read.
    """
    config = load_config(checkpoint)
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=DTYPES[dtype],
            device_map=device if device in DEVICE_MAPS else None,
            use_safetensors=True,
            output_loading_info=True,
            **WITHOUT_CODE,
        )
    except Exception as error:  # the files are a stranger's
        raise ModelError(
            f"the weights of {checkpoint.name} cannot be loaded: {_first_line(error)}"
        ) from error
    missing = sorted(report.get("missing_keys", []))
    if missing:
        raise ModelError(
            f"the weights of {checkpoint.name} lack {len(missing)} tensors, such as {missing[0]}",
            "the checkpoint is incomplete; download it again",
        )
    return (model if device in DEVICE_MAPS else model.to(device)).eval()


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the checkpoint's tokenizer, padding on the right.

    Raises
    ------
    ModelError
        If it has none, or one that gives no character offsets.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Without these files transformers makes up an empty tokenizer.
    if not any((checkpoint.folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{checkpoint.folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}",
            "save it there with tokenizer.save_pretrained(FOLDER)",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **WITHOUT_CODE)
    except Exception as error:  # the files are a stranger's
        raise ModelError(
            f"{checkpoint.name} has no tokenizer that can be read: {_first_line(error)}",
            "code that comes with a tokenizer is not run; a tokenizer.json is read",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {checkpoint.name} gives no character offsets")
    tokenizer.padding_side = "right"
    return tokenizer


def default_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``.

    Of several GPUs the one that ``LOCAL_RANK`` says, as torchrun sets it for each process.
    """
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK", "")
        return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> str:
    """Return ``device`` if this machine has it.

    Raises
    ------
    UsageError
        If not.
    """
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"no device {device!r} here: {_first_line(error)}", "--device cpu, cuda, cuda:1, mps"
        ) from error
    return device


def default_dtype(checkpoint: Checkpoint, device: str) -> str:
    """The number format to run in: the checkpoint's own, or float32 where a CPU likes it better."""
    stored = str(getattr(load_config(checkpoint), "dtype", None)).removeprefix("torch.")
    weights = sum(path.stat().st_size for path in checkpoint.folder.glob("*.safetensors"))
    small = device == "cpu" and weights < 1 << 30
    slow = stored in ("bfloat16", "float16") and device == "cpu" and not has_fast_bfloat16(device)
    return "float32" if stored not in DTYPES or small or slow else stored


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
