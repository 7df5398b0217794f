"""What this machine can do, and how the process uses its memory."""

import ctypes
import os
import platform

import torch

from moedb.errors import UsageError, first_line

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


def use_large_pages() -> None:
    """Have PyTorch ask for memory in large pages, where the system gives them when asked.

    It takes far fewer of them, each of which is cleared when it is first touched. Called where a
    capture or a training begins: PyTorch looks at the variable once, at its first tensor that has
    values, so afterwards it does nothing. A variable that is set already is left as it is.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def has_fast_bfloat16(device: str) -> bool:
    """Whether ``device`` computes in bf16: a GPU that does, or a CPU with instructions for it.

    A CPU without them is some ten times slower in bf16 than in float32.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return kind == "cpu" and _cpu_has("avx512_bf16", "amx_bf16", "bf16")


def has_fast_float16(device: str) -> bool:
    """Whether ``device`` computes in fp16: a GPU, or one of the few CPUs with instructions for it.

    A CPU without them is several times slower in fp16 than in float32.
    """
    return device != "cpu" or _cpu_has("avx512_fp16", "amx_fp16", "fp16_arith")


def _cpu_has(*instructions: str) -> bool:
    """Whether the processor has one of some kinds of instructions, by PyTorch's names."""
    query = getattr(torch.cpu, "get_capabilities", None)  # older versions have none
    has = query() if query is not None else {}
    return any(bool(has.get(name)) for name in instructions)


def _best_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``.

    Of several GPUs the one that ``LOCAL_RANK`` says, as torchrun sets it for each process.
    """
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK", "")
        return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_device(device: str | None) -> str:
    """Return ``device`` if this machine has it; if it is None, the machine's best.

    Raises
    ------
    UsageError
        If the machine does not have it.
    """
    device = device or _best_device()
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"no device {device!r} here: {first_line(error)}", "--device cpu, cuda, cuda:1, mps"
        ) from error
    return device
