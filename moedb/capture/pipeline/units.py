"""Units: the examples that are committed together."""

from moedb.capture.pipeline.survey import Survey
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
