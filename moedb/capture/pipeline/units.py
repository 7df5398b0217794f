"""Units: the examples that are committed together, and which units a process of several runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moedb.capture.pipeline.survey.counting import Survey
from moedb.errors import UsageError
from moedb.schemas.arrays import SHARD_ROWS
from moedb.schemas.manifests import UnitRange

UNIT_TOKENS = 8192
"""Tokens of a unit at most, where its arrays allow: what a kill can cost."""

UNIT_BATCHES = 4
"""Batches that a unit with arrays is made for: its last batch is seldom a whole one."""

UNIT_BYTES = 2**28
"""Bytes of a unit's arrays at most, unless one batch has more: a few units are in memory."""


def divide(found: Survey, row_bytes: int, batch_size: int) -> tuple[tuple[UnitRange, ...], int]:
    """Divide the examples into units of whole examples, each large enough for a whole batch.

    Parameters
    ----------
    found
        The examples' sizes.
    row_bytes
        Bytes of a token's rows in all arrays; 0 without arrays.
    batch_size
        Examples of a forward pass.

    Returns
    -------
    units, unit_rows
        The units, and the array rows that each owns (whole shards).
    """
    n_batch = min(batch_size, found.n_examples)
    in_batch = -(-n_batch * found.n_kept // found.n_examples)
    needed = max(int(found.kept.max()), in_batch) if row_bytes else 0
    if row_bytes:
        affordable = UNIT_BYTES // row_bytes // SHARD_ROWS * SHARD_ROWS
        wanted = min(UNIT_BATCHES * in_batch, found.n_kept, UNIT_TOKENS)
        needed = max(needed, min(wanted, affordable))
    unit_rows = SHARD_ROWS * max(1, -(-needed // SHARD_ROWS))
    unit_tokens = max(UNIT_TOKENS, -(-n_batch * found.n_tokens // found.n_examples))
    units = []
    first = n_tokens = n_rows = 0
    for index in range(found.n_examples):
        length, kept = int(found.lengths[index]), int(found.kept[index])
        over = n_tokens + length > unit_tokens or (row_bytes > 0 and n_rows + kept > unit_rows)
        if over and index > first:
            units.append(UnitRange(first, index, n_tokens, n_rows))
            first, n_tokens, n_rows = index, 0, 0
        n_tokens += length
        n_rows += kept
    units.append(UnitRange(first, found.n_examples, n_tokens, n_rows))
    return tuple(units), unit_rows


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
