"""What this machine can do, and how the process uses its memory."""

import ctypes
import platform

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, instead of giving it back to the system.

    A training step frees and takes the same large tensors each time, and so does each batch of a
    capture; having the system clear them anew costs about a third of the time
    of a CIFAR MoE's training step. Does nothing beside glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def has_fast_bfloat16(device: str) -> bool:
    """Whether ``device`` computes in bf16: a GPU that does, or a CPU with instructions for it.

    A CPU without them is some ten times slower in bf16 than in float32.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if kind != "cpu":
        return False
    query = getattr(torch.cpu, "get_capabilities", None)  # older versions have none
    has = query() if query is not None else {}
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
