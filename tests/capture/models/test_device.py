"""How a process uses its memory."""

import os
import subprocess
import sys

import pytest

ALIGNED = """
import torch

{before}
# With large pages PyTorch has what is large begin at a page, else at a multiple of 64 bytes.
kept = [torch.empty((1 << 22) + 1000 * i + 17) for i in range(6)]
print(all(tensor.data_ptr() % 4096 == 0 for tensor in kept))
"""

DIRECTLY = """
from moedb.capture.models.device import use_large_pages
use_large_pages()
use_large_pages()
"""

BY_A_PLAN = """
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.pipeline.plan import CaptureOptions
plan_qwen_ioi(CaptureOptions("qwen-moe-mini"), n=2, seed=0)
"""


def are_aligned(before: str, **environment: str) -> bool:
    """Whether a process has large tensors begin at pages after the code ``before``."""
    without = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", ALIGNED.format(before=before)],
        env=without | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1] == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are Linux's")
def test_memory_is_asked_for_in_large_pages_once_a_capture_is_planned() -> None:
    assert not are_aligned("")
    assert not are_aligned("import moedb.capture.models.device")
    assert are_aligned(DIRECTLY)
    assert are_aligned(BY_A_PLAN)
    assert not are_aligned(DIRECTLY, THP_MEM_ALLOC_ENABLE="0")  # as the user says
