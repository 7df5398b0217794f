"""Several processes on one run: which of its units each takes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moedb.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One process's share of a run: the units whose number is ``index`` modulo ``count``.

    Attributes
    ----------
    index, count
        Which share, from 0, and of how many.
    source
        Where that was read.
    """

    index: int = 0
    count: int = 1
    source: str = "--shard"

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"{self.source} says shard {self.index} of {self.count}: "
                f"shards of {self.count} are 0 to {self.count - 1}"
                if self.count > 0
                else f"{self.source}: {self.count} shards, expected 1 or more",
                "--shard I/N with I from 0 to N-1; --shard 0/1 takes everything",
            )

    def units(self, missing: Sequence[int]) -> list[int]:
        """Those of the missing units that are this process's."""
        return [unit for unit in missing if unit % self.count == self.index]

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Parse ``I/N``.

    Raises
    ------
    UsageError
        If it is something else.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise UsageError(f"--shard {text!r}: expected I/N, such as 0/4")
    return Shard(int(match.group(1)), int(match.group(2)))


def shard_of_environment(environment: Mapping[str, str]) -> Shard:
    """The share that a job array of SLURM, or torchrun, gives this process; else everything.

    Raises
    ------
    UsageError
        If the variables contradict each other.
    """

    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name, "")
        if not text and default is not None:
            return default
        if not re.fullmatch(r"\d+", text):
            raise UsageError(f"{name} is {text!r}, expected a number", "--shard I/N overrides it")
        return int(text)

    if "SLURM_ARRAY_TASK_ID" in environment:
        first = number("SLURM_ARRAY_TASK_MIN", 0)
        step = number("SLURM_ARRAY_TASK_STEP", 1)
        last = number("SLURM_ARRAY_TASK_MAX", first)
        index = (number("SLURM_ARRAY_TASK_ID") - first) // max(step, 1)
        count = (last - first) // max(step, 1) + 1
        return Shard(index, number("SLURM_ARRAY_TASK_COUNT", count), "SLURM_ARRAY_TASK_ID")
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Shard(number("RANK"), number("WORLD_SIZE"), "RANK")
    return Shard()
