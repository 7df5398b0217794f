"""Loading checkpoints that GPTQ quantized.

transformers 5 cannot load the experts of one by itself: the checkpoint has a linear layer for each
expert where the model has stacked weights. gptqmodel builds the blocks anew, with lists of experts.
"""

from typing import Any

from transformers import PreTrainedModel

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.loading.pretrained import DTYPES, load_config
from moedb.capture.models.loading.safe_config import check_implementations
from moedb.errors import ModelError


def is_gptq(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's configuration says that GPTQ quantized it."""
    quantization: Any = getattr(load_config(checkpoint), "quantization_config", None)
    if quantization is None:
        return False
    settings = quantization if isinstance(quantization, dict) else vars(quantization)
    return settings.get("quant_method") == "gptq"


def load_gptq(checkpoint: Checkpoint, dtype: str, device: str) -> PreTrainedModel:
    """Load a checkpoint that GPTQ quantized, for inference.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    dtype
        ``float32``, ``bfloat16`` or ``float16``: what the quantized layers compute in.
    device
        A torch device, such as ``cpu`` or ``cuda:0``.

    Raises
    ------
    ModelError
        If gptqmodel is not installed or cannot load it, or it names code of the hub.
    """
    try:
        from gptqmodel import GPTQModel
    except ImportError as error:
        raise ModelError(
            f"{checkpoint.name} is quantized by GPTQ, which needs gptqmodel: {error}",
            "pip install 'moedb[gptq]'",
        ) from error
    check_implementations(checkpoint.folder)
    try:
        loaded = GPTQModel.load(
            str(checkpoint.folder), device=device, dtype=DTYPES[dtype], trust_remote_code=False
        )
    except (ValueError, OSError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"the quantized weights of {checkpoint.name} cannot be loaded: {error}",
            "another --dtype may fit a kernel: float32, bfloat16 or float16",
        ) from error
    model: PreTrainedModel = loaded.model
    return model.eval()
