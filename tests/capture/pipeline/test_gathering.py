"""The rows of a unit, from the batches they are in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moedb.capture.pipeline.assembly import GatheredRows, ReusedMemory


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
)
def test_pieces_of_gathered_rows_are_the_rows_in_order(
    lengths: list[int], seed: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((length, 2, 3)).astype(np.float32) for length in lengths]
    order = rng.permutation(sum(lengths))
    rows = GatheredRows(parts, order)
    expected = np.concatenate(parts)[order]
    assert len(rows) == len(expected)
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, expected[start : start + size])


def test_rows_that_stand_together_are_taken_together() -> None:
    parts = [np.arange(n)[:, None] + 10.0 * i for i, n in enumerate((3, 0, 4, 2))]
    laid = np.concatenate(parts)
    for order in ([0, 1, 2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7, 0, 1, 8, 2, 3], [], [2, 3], [3, 2]):
        rows = GatheredRows(parts, np.array(order, dtype=np.int64))
        np.testing.assert_array_equal(rows[0:9], laid[np.array(order, dtype=np.int64)])


def test_arrays_written_in_turn_share_memory() -> None:
    memory = ReusedMemory()
    order = np.array([2, 0, 1], dtype=np.int64)
    large = GatheredRows([np.arange(12, dtype=np.float32).reshape(3, 4)], order, memory)
    small = GatheredRows([np.arange(3, dtype=np.float16)[:, None]], order, memory)
    for _ in range(2):
        np.testing.assert_array_equal(large[0:3][:, 0], [8, 0, 4])
        np.testing.assert_array_equal(small[0:3], [[2], [0], [1]])
        np.testing.assert_array_equal(large[1:3], [[0, 1, 2, 3], [4, 5, 6, 7]])
