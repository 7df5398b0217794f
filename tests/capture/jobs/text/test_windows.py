"""Windows over documents."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moedb.capture.jobs.text.job import TextOptions
from moedb.capture.jobs.text.windows import window_text, windows
from moedb.errors import UsageError

sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(st.integers(0, 300), sizes)
def test_windows_cover_every_token_and_overlap_by_the_rest_of_the_stride(
    n_tokens: int, size: tuple[int, int]
) -> None:
    max_length, stride = size
    found = list(windows(n_tokens, max_length, stride))
    assert {token for window in found for token in window} == set(range(n_tokens))
    assert all(0 < len(window) <= max_length for window in found)
    assert all(len(window) == max_length for window in found[:-1])
    for before, after in itertools.pairwise(found):
        assert after.start == before.start + stride
        assert before.stop < after.stop, "a window within the one before it"


@given(st.text(max_size=80), sizes)
@example("0\U00010000\U00010000", (2, 1))
def test_texts_of_windows_without_overlap_add_up(
    tokenizer: Any, text: str, size: tuple[int, int]
) -> None:
    max_length, _ = size
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    parts = [window_text(text, offsets, w) for w in windows(len(offsets), max_length, max_length)]
    ends = {0}
    for part in parts:
        # A character of several tokens may be in several windows, and stand beside its like.
        starts = {start for end in ends for start in (end, end - 1) if start >= 0}
        ends = {start + len(part) for start in starts if text.startswith(part, start)}
        assert ends
    assert not parts or len(text) in ends


@pytest.mark.parametrize(
    ("options", "context", "expected"),
    [
        ({}, 512, (512, 512)),
        ({}, 32768, (1024, 1024)),
        ({}, None, (1024, 1024)),
        ({"max_length": 2000}, 4096, (2000, 2000)),
        ({"max_length": 100, "stride": 30}, 512, (100, 30)),
    ],
)
def test_sizes(options: dict[str, int], context: int | None, expected: tuple[int, int]) -> None:
    assert TextOptions(**options).window_sizes(context) == expected  # type: ignore[arg-type]


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="--max-length 513: the model takes in 512 tokens"):
        TextOptions(max_length=513).window_sizes(512)
    with pytest.raises(UsageError, match="--stride 11: expected 10"):
        TextOptions(max_length=10, stride=11).window_sizes(512)
    with pytest.raises(UsageError, match="--stride 2000: expected 1024"):
        TextOptions(stride=2000).window_sizes(None)
    for name in ("max_length", "stride", "max_examples", "max_tokens"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} 0: expected 1 or more"):
            TextOptions(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no meaning with --truncate"):
        TextOptions(truncate=True, stride=4)
