"""Columns as JSON: what is read back, and what the bytes are."""

import base64
import json
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moedb.queries.report.pages.columns import (
    numbers,
    read_column,
    read_table,
    rows_where,
    table,
    texts,
)


@given(arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=True)))
def test_floats_come_back_bit_for_bit(values: np.ndarray) -> None:
    read = read_column(json.loads(json.dumps(numbers(values))))
    assert np.asarray(read).tobytes() == values.tobytes()


@given(st.lists(st.integers(-(2**53), 2**53), max_size=40))
def test_whole_numbers_come_back(values: list[int]) -> None:
    assert [
        int(value) for value in read_column(numbers(np.array(values, dtype=np.int64)))
    ] == values


@pytest.mark.parametrize(
    ("most", "type_"), [(255, "u8"), (256, "u16"), (65_536, "u32"), (2**32, "f64")]
)
def test_whole_numbers_are_as_narrow_as_they_can_be(most: int, type_: str) -> None:
    assert numbers(np.array([0, most]))["type"] == type_
    assert numbers(np.array([-1, 1]))["type"] == "i32"


def test_what_a_double_does_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="not exact"):
        numbers(np.array([2**53 + 1]))


@given(st.lists(st.none() | st.text(), max_size=30))
def test_texts_come_back(values: list[str | None]) -> None:
    column = texts(values)
    assert read_column(column) == values
    assert len(column["values"]) == len(set(values))


def test_the_bytes_are_those_that_are_described() -> None:
    column = numbers(np.array([258, 3], dtype=np.int64))
    # 258 is 02 01, 3 is 03 00: the first bytes, then the second
    assert zlib.decompress(base64.b64decode(column["data"])) == bytes([2, 3, 1, 0])


def test_a_table_has_its_columns_in_order_and_nulls() -> None:
    rows = pa.table({"b": pa.array([1.5, None]), "a": ["x", None], "n": pa.array([1, None])})
    made = table(rows)
    read = read_table(made)
    assert [*read] == ["b", "a", "n"] and made["n"] == 2
    assert read["a"] == ["x", None]
    assert np.isnan(read["b"][1]) and np.isnan(read["n"][1]) and read["n"][0] == 1


def test_rows_are_cut_by_a_value() -> None:
    rows = pa.table({"layer": [0, 1, 0], "of": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    cut = rows_where(table(rows), "layer", 0)
    read = read_table(cut)
    assert cut["n"] == 2 and read["of"] == ["a", "c"] and read["x"].tolist() == [1.0, 3.0]
