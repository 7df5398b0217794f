"""Several processes on one run: their shares, and that together they write what one writes."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset
from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan
from moedb.capture.pipeline.running import capture
from moedb.capture.pipeline.units import Shard, parse_shard, shard_of_environment
from moedb.errors import UsageError
from moedb.store.reading.snapshot import read_run
from tests.support.contents import run_contents
from tests.support.models.cifar_images import make_image_sets
from tests.support.models.cifar_store import CifarStore
from tests.support.stopping import stopping_at

N_PROCESSES = 4


def test_shares_are_disjoint_and_cover_everything() -> None:
    missing = [0, 1, 3, 4, 5, 8, 9, 11]
    shares = [Shard(i, 3).units(missing) for i in range(3)]
    assert shares == [[0, 3, 9], [1, 4], [5, 8, 11]]
    assert Shard().units(missing) == missing


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, (2, 4)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_MAX": "9",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (1, 3),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "4",
            },
            (2, 4),
        ),
        ({"RANK": "1", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (1, 8)),
    ],
)
def test_the_environment_says_which_share(
    environment: dict[str, str], expected: tuple[int, int]
) -> None:
    shard = shard_of_environment(environment)
    assert (shard.index, shard.count) == expected


def test_wrong_shares_are_refused() -> None:
    for text in ("4/4", "1/0", "-1/4", "1", "a/b", "1/2/3", ""):
        with pytest.raises(UsageError):
            parse_shard(text)
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_ID is 'x'"):
        shard_of_environment({"SLURM_ARRAY_TASK_ID": "x"})
    with pytest.raises(UsageError, match="RANK says shard 9 of 8: shards of 8 are 0 to 7"):
        shard_of_environment({"RANK": "9", "WORLD_SIZE": "8"})


def plan_many(models: Path) -> CapturePlan:
    """Five units of images."""
    from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture

    images = make_image_sets(10, 5 * 1024 - 300, seed=2)[1]
    dataset = cifar_dataset(images, n=None, draws=1, seed=0)
    folder = models / "cifar-moe-short-2-trial-0"
    return plan_cifar_capture(CaptureOptions(model=str(folder), batch_size=256), dataset)


WORK = """
import sys
from pathlib import Path
import torch
from moedb.capture.pipeline.running import capture
from moedb.capture.pipeline.units import parse_shard
from tests.capture.pipeline.test_units import plan_many
torch.set_num_threads(1)
models, store, shard = sys.argv[1:]
outcome = capture(plan_many(Path(models)), Path(store), shard=parse_shard(shard))
print(outcome.units_now, outcome.units_missing)
"""


def start(models: Path, store: Path, shard: str, first: str = "") -> subprocess.Popen[str]:
    """Capture a shard in a process of its own, which runs the code ``first`` before."""
    return subprocess.Popen(
        [sys.executable, "-c", first + WORK, str(models), str(store), shard],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.model
def test_four_processes_one_of_them_killed_write_what_one_writes(
    tmp_path: Path, cifar_store: CifarStore
) -> None:
    planned = plan_many(cifar_store.models)
    assert len(planned.units) == 5
    capture(planned, tmp_path / "one")

    store = tmp_path / "four"
    killed = {1: stopping_at(store / "runs" / planned.run_id / "run.json", signal.SIGKILL)}
    processes = [
        start(cifar_store.models, store, f"{i}/{N_PROCESSES}", killed.get(i, ""))
        for i in range(N_PROCESSES)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert processes[1].returncode == -signal.SIGKILL
    for index in (0, 2, 3):
        assert processes[index].returncode == 0, outputs[index][1]
    assert not read_run(store, planned.run_id).is_complete

    again = start(cifar_store.models, store, f"1/{N_PROCESSES}")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert out.split()[1] == "0"
    run = read_run(store, planned.run_id)
    assert run.is_complete
    assert run_contents(store, planned.run_id) == run_contents(tmp_path / "one", planned.run_id)
    assert not run.layout.staging.exists()


@pytest.mark.model
def test_a_shard_says_what_is_left_to_others(tmp_path: Path, cifar_store: CifarStore) -> None:
    run = partial(capture, plan_many(cifar_store.models), tmp_path / "store")
    first = run(shard=Shard(0, 2))
    assert (first.units_before, first.units_now, first.units_missing) == (0, 3, 2)
    idle = run(shard=Shard(0, 2))
    assert (idle.units_before, idle.units_now, idle.units_missing) == (3, 0, 2)
    assert not idle.was_complete
    second = run()  # without a shard: whatever is missing
    assert (second.units_before, second.units_now, second.units_missing) == (3, 2, 0)
    assert run(shard=Shard(1, 2)).was_complete
