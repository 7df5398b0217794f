"""Opening a checkpoint in whichever way it fits: quantized, loaded whole, or streamed."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from transformers import PreTrainedModel

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.device import keep_freed_memory
from moedb.capture.models.loading.pretrained import DTYPES, load_model, load_skeleton
from moedb.capture.models.loading.quantized import (
    gptq_settings,
    load_gptq,
    stays_quantized,
)
from moedb.capture.models.placement import Placement
from moedb.capture.models.streaming.streamed_model import streamed_model

FREE_SHARE = 0.6
"""Share of the free memory that weights may take; the rest is for activations."""


@contextmanager
def opened_model(checkpoint: Checkpoint, placement: Placement) -> Iterator[PreTrainedModel]:
    """Open a checkpoint for inference, streamed where its weights are too large.

    What GPTQ quantized is loaded as it is on one GPU; on a CPU, or in part, its weights are
    dequantized as they are read.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    placement
        What it runs in, and where its weights go.

    Raises
    ------
    UsageError, ModelError
        As `load_model`, `load_gptq` and `streamed_model` do.
    """
    dtype, device, max_bytes = placement.dtype, placement.device, placement.max_bytes
    if stays_quantized(checkpoint, placement):
        yield load_gptq(checkpoint, dtype, device)
        return
    is_plain = gptq_settings(checkpoint) is None
    if placement.device_map is not None and is_plain:
        keep_freed_memory()
        yield load_model(checkpoint, dtype, placement.device_map)
        return
    if max_bytes is None:
        on_cpu = device == "cpu"
        max_bytes = int(FREE_SHARE * psutil.virtual_memory().available) if on_cpu else None
    if max_bytes is None or (is_plain and weight_bytes(checkpoint, dtype) <= max_bytes):
        # Not for a streamed model: what is freed there differs in size, and would pile up.
        keep_freed_memory()
        yield load_model(checkpoint, dtype, device)
        return
    with streamed_model(checkpoint, dtype, device, max_bytes) as model:
        yield model


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Bytes of a checkpoint's weights once they are loaded as ``dtype``."""
    n_values = sum(parameter.numel() for parameter in load_skeleton(checkpoint).parameters())
    return int(n_values * DTYPES[dtype].itemsize)
