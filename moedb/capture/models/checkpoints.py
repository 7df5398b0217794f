"""Finding a model and hashing it: the embedded one, a local folder, or the hub's."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from moedb.capture.models.hub import hub_failure, tidy_output
from moedb.errors import ModelError, ModelNotFoundError, did_you_mean
from moedb.store.files import sha256_of_file

EMBEDDED_MODEL = "qwen-moe-mini"
DENSE_TWINS = {"qwen-dense-mini-active": "active", "qwen-dense-mini-total": "total"}
"""Models trained like the embedded one, with the width that each is made with."""

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
HUB_COPIES = ("*/*", "consolidated*.safetensors")
"""What is fetched of a model on the hub, and what of that is not: a repository may hold the same
weights again for other programs, in folders (``original/``) or in Mistral's own format."""

WEIGHT_INDEX = "model.safetensors.index.json"


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
    """Resolve ``model``: an embedded model's name, a local folder, or a hub id.

    Raises
    ------
    ModelNotFoundError
        If there is no such folder, the hub cannot be reached or does not know the id, or the name
        is that of a twin which does not come with moedb.
    ModelError
        If the folder is no safetensors checkpoint.
    """
    embedded = Path(str(resources.files("moedb.capture.mini") / "data")) / model
    if model == EMBEDDED_MODEL or (model in DENSE_TWINS and embedded.is_dir()):
        return _checkpoint(model, embedded, None)
    path = Path(model).expanduser()
    if path.is_dir():
        return local_checkpoint(path)
    if model in DENSE_TWINS:
        raise ModelNotFoundError(
            f"{model} does not come with moedb, and there is no folder of that name here",
            f"make it: moedb train qwen-dense-mini --width {DENSE_TWINS[model]} --corpus FILE "
            f"-o {model}",
        )
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
