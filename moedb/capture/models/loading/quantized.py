"""Checkpoints that GPTQ quantized: which they are, and loading one as it is.

transformers 5 cannot load the experts of one by itself: the checkpoint has a linear layer for each
expert where the model has stacked weights. gptqmodel builds the blocks anew, with lists of experts,
which is for GPUs: its kernels for CPUs are slow. There the weights are dequantized as they are
read, see :mod:`moedb.capture.models.streaming.gptq_weights`.
"""

from typing import Any

from transformers import PreTrainedModel

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.loading.pretrained import DTYPES, load_config
from moedb.capture.models.loading.safe_config import check_implementations
from moedb.capture.models.placement import Placement
from moedb.errors import ModelError


def gptq_settings(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What the checkpoint's configuration says of its quantization; None if it is not by GPTQ."""
    quantization: Any = getattr(load_config(checkpoint), "quantization_config", None)
    if quantization is None:
        return None
    settings = quantization if isinstance(quantization, dict) else vars(quantization)
    return settings if settings.get("quant_method") == "gptq" else None


def stays_quantized(checkpoint: Checkpoint, placement: Placement) -> bool:
    """Whether the checkpoint is opened with the weights that GPTQ quantized as they are."""
    in_part = placement.device == "cpu" or placement.max_bytes is not None
    return not in_part and gptq_settings(checkpoint) is not None


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
            "pip install -e '.[gptq]' in moedb's folder, or --max-memory GB to dequantize it "
            "layer by layer",
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
