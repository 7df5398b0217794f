"""Loading a checkpoint with transformers: its configuration, its model, its tokenizer.

Only safetensors are read, and no code that comes with a checkpoint is run.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.device import has_fast_bfloat16, has_fast_float16
from moedb.capture.models.loading.safe_config import WITHOUT_CODE, read_config
from moedb.capture.models.placement import DEVICE_MAPS
from moedb.errors import ModelError, first_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

CODE_IS_NOT_RUN = (
    "it comes with code of its own (auto_map), which moedb does not run; a newer transformers may "
    "have the model: pip install -U 'transformers<6'"
)


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
            f"the configuration of {checkpoint.name} cannot be read: {first_line(error)}"
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
            f"{first_line(error)}",
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
            f"the weights of {checkpoint.name} cannot be loaded: {first_line(error)}"
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
        tokenizer = read_tokenizer(checkpoint.folder)
    except Exception as error:  # the files are a stranger's
        raise ModelError(
            f"{checkpoint.name} has no tokenizer that can be read: {first_line(error)}",
            "code that comes with a tokenizer is not run; a tokenizer.json is read",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {checkpoint.name} gives no character offsets")
    tokenizer.padding_side = "right"
    return tokenizer


def read_tokenizer(folder: Path) -> Any:
    """Read the tokenizer of a folder as its tokenizer.json has it, where that is what it names.

    For some model types, Qwen2 among them, `AutoTokenizer` takes a class of the type instead of the
    general one that the folder names, which splits texts in another way.
    """
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and (folder / "tokenizer.json").is_file():
        named = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
        if named == PreTrainedTokenizerFast.__name__:
            return PreTrainedTokenizerFast.from_pretrained(folder, **WITHOUT_CODE)
    return AutoTokenizer.from_pretrained(folder, **WITHOUT_CODE)


def default_dtype(checkpoint: Checkpoint, device: str) -> str:
    """The number format to run in: the checkpoint's own, or float32 where a CPU likes it better."""
    stored = str(getattr(load_config(checkpoint), "dtype", None)).removeprefix("torch.")
    weights = sum(path.stat().st_size for path in checkpoint.folder.glob("*.safetensors"))
    small = device == "cpu" and weights < 1 << 30
    slow = device == "cpu" and (
        (stored == "bfloat16" and not has_fast_bfloat16(device))
        or (stored == "float16" and not has_fast_float16(device))
    )
    return "float32" if stored not in DTYPES or small or slow else stored
