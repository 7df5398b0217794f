"""How a process uses its memory, and what a processor computes in."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.device import has_fast_float16, use_large_pages
from moedb.capture.models.loading.pretrained import default_dtype

VARIABLE = "THP_MEM_ALLOC_ENABLE"

ALIGNED = """
import torch

{before}
# With large pages PyTorch has what is large begin at a page, else at a multiple of 64 bytes.
kept = [torch.empty((1 << 22) + 1000 * i + 17) for i in range(6)]
print(all(tensor.data_ptr() % 4096 == 0 for tensor in kept))
"""

BY_A_PLAN = """
from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
from moedb.capture.pipeline.plan import CaptureOptions
plan_qwen_ioi(CaptureOptions("qwen-moe-mini"), n=2, seed=0)
"""


def are_aligned(before: str) -> bool:
    """Whether a process has large tensors begin at pages after the code ``before``."""
    done = subprocess.run(
        [sys.executable, "-c", ALIGNED.format(before=before)],
        env={name: value for name, value in os.environ.items() if name != VARIABLE},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1] == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are Linux's")
def test_memory_is_asked_for_in_large_pages_once_a_capture_is_planned() -> None:
    assert not are_aligned("import moedb.capture.models.device")
    assert are_aligned(BY_A_PLAN)


def test_what_the_user_says_of_large_pages_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    use_large_pages()
    assert os.environ[VARIABLE] == "0"
    monkeypatch.delenv(VARIABLE)
    for _ in range(2):
        use_large_pages()
        assert os.environ[VARIABLE] == "1"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="reads /proc/cpuinfo of x86"
)
def test_float16_is_run_in_where_the_processor_computes_in_it(tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    has = "avx512_fp16" in flags or "amx_fp16" in flags
    assert has_fast_float16("cpu") == has
    assert has_fast_float16("cuda:0")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_moe", "dtype": "float16"}')
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 << 30)  # large, and takes no room
    checkpoint = Checkpoint("large", tmp_path, None, "")
    assert default_dtype(checkpoint, "cpu") == ("float16" if has else "float32")
    assert default_dtype(checkpoint, "cuda") == "float16"
