"""A checkpoint's configuration, without what it may not decide: which code is run.

A ``config.json`` can name Python files beside it or on the hub (``auto_map``), kernels of the hub
(an attention or experts implementation such as ``OWNER/NAME``, quantization methods), another file
with the weights, which may be a pickle, and an adapter. None of it is followed: transformers' own
classes run, with an attention that comes with PyTorch, on the safetensors that were hashed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from moedb.capture.models.checkpoints import WEIGHT_INDEX
from moedb.errors import ModelError

WITHOUT_CODE = {"local_files_only": True, "trust_remote_code": False}
"""Keywords of every ``from_pretrained``: nothing is fetched, and no code of a checkpoint is run.

Where ``trust_remote_code`` is left out, transformers asks on the standard input."""

_DEQUANTIZED = ("mxfp4", "fp8")
"""Formats that transformers turns into plain weights by itself. It is told to, as it would else
fetch kernels from the hub on machines that have the library ``kernels``."""
_QUANTIZED = (*_DEQUANTIZED, "gptq")

_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
_OF_PYTORCH = (None, "eager", "sdpa", "grouped_mm", "batched_mm")


def read_config(folder: str | Path) -> Any:
    """Read the configuration in a checkpoint's folder.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    transformers.PreTrainedConfig
        With no choice of an attention or experts implementation, so that transformers takes its
        default: of attention PyTorch's ``sdpa`` where the model has it, else ``eager``.

    Raises
    ------
    ModelError
        If it can only be had by running code, or names weights that are not read.
    OSError, ValueError, ...
        If transformers cannot read it; each family checks in its own way.
    """
    written = _written(Path(folder))
    _check_known(written)
    _check_quantization(written)
    config: Any = AutoConfig.from_pretrained(folder, **WITHOUT_CODE)
    # Set for the configurations inside it too, such as that of the text.
    config._attn_implementation = None
    config._experts_implementation = None
    if getattr(config, "fusion_config", None) is not None:
        config.fusion_config = None  # it would change transformers' classes for the whole process
    _check_weights(config)
    _dequantize(config)
    return config


def check_implementations(folder: Path) -> None:
    """Refuse a configuration that names an implementation other than PyTorch's.

    For those who hand the folder on to a library that reads the configuration again.

    Raises
    ------
    ModelError
        If it names one.
    """
    for key, value in _entries(_written(folder)):
        if key.strip("_").removesuffix("_internal") in _IMPLEMENTATIONS:
            named = list(value.values()) if isinstance(value, dict) else [value]
            if any(each not in _OF_PYTORCH for each in named):
                raise ModelError(
                    f"{folder / 'config.json'}: {key} is {value!r}; that may be code of the hub, "
                    "which is not run",
                    f"take {key} out of config.json",
                )


def _written(folder: Path) -> dict[str, Any]:
    """What is written in ``config.json``; what is no object says nothing."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its value, at whatever depth."""
    for key, each in value.items() if isinstance(value, dict) else ():
        yield str(key), each
        yield from _entries(each)


def _check_known(written: dict[str, Any]) -> None:
    """Say so where the configuration's own class is code that is not run."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = written.get("model_type")
    if written.get("auto_map") and kind not in CONFIG_MAPPING:
        raise ModelError(
            f"its model type {kind!r} is none of transformers', and the code that comes with it "
            "(auto_map) is not run",
            "a newer transformers may have it: pip install -U 'transformers<6'; docs/models.md "
            "lists the families that were tried",
        )


def _check_weights(config: Any) -> None:
    named = getattr(config, "transformers_weights", None)
    if named is None:
        return
    plain = isinstance(named, str) and named == Path(named).name
    if not plain or not (named == WEIGHT_INDEX or named.endswith(".safetensors")):
        raise ModelError(
            f"its transformers_weights are {named!r}; only *.safetensors beside config.json are "
            "read",
            "take transformers_weights out of config.json",
        )


def _check_quantization(written: dict[str, Any]) -> None:
    for key, settings in _entries(written):
        if key not in ("quantization_config", "compression_config") or settings is None:
            continue
        settings = settings if isinstance(settings, dict) else {}
        method = settings.get("quant_method")
        if method not in _QUANTIZED or settings.get("load_in_4bit") or settings.get("load_in_8bit"):
            raise ModelError(
                f"its weights are quantized in a way that is not read ({method}); read are "
                f"{', '.join(sorted(_QUANTIZED))}",
                "dequantize it with transformers, save_pretrained(FOLDER), and --model FOLDER",
            )


def _dequantize(config: Any) -> None:
    for part in (config, config.get_text_config()):
        quantization = getattr(part, "quantization_config", None)
        if isinstance(quantization, dict) and quantization.get("quant_method") in _DEQUANTIZED:
            quantization["dequantize"] = True
