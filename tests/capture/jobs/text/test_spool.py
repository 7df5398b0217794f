"""Examples in a file: what they are, and how little memory they take."""

import errno
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.capture.examples import Dataset, Example, hash_examples
from moedb.capture.jobs.text import spool as spooling
from moedb.capture.jobs.text.spool import ExampleSpool, SpooledExamples
from moedb.capture.pipeline.survey.counting import survey
from moedb.capture.pipeline.survey.tokens import TokenSelection
from moedb.capture.pipeline.units import divide
from moedb.errors import CaptureError
from moedb.store.files import sha256_of_json


class Texts(dict[int, str]):
    def __missing__(self, token_id: int) -> str:
        return f"<{token_id}>"


def example(token_ids: list[int], text: str = "t", **labels: str | None) -> Example:
    tags = tuple("odd" if token % 2 else None for token in token_ids)
    return Example(
        split="text",
        text=text,
        token_ids=tuple(token_ids),
        tokens=tuple(Texts()[token] for token in token_ids),
        labels={key: value for key, value in labels.items() if value is not None},
        token_labels={"tag": tags} if labels.get("a") else {},
    )


def spooled(examples: list[Example]) -> SpooledExamples:
    with ExampleSpool("text", ("a", "b"), ("tag",), Texts()) as spool:
        for each in examples:
            spool.add(each)
        assert len(spool) == len(examples)
        return spool.finish()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
rows = st.lists(
    st.builds(
        lambda ids, text, a, b: example(ids, text, a=a, b=b),
        st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6),
        texts,
        st.none() | texts,
        st.none() | texts,
    ),
    min_size=1,
    max_size=30,
)


@given(rows, st.data())
def test_they_are_what_was_put_in(examples: list[Example], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spooling, "BATCH_EXAMPLES", data.draw(st.integers(1, 7)))
        patch.setattr(spooling, "BATCH_TOKENS", data.draw(st.integers(1, 20)))
        found = spooled(examples)
    assert list(found) == examples and len(found) == len(examples)
    assert found.n_tokens == sum(map(len, examples))
    part = data.draw(st.slices(len(examples)))
    assert list(found[part]) == examples[part]
    index = data.draw(st.integers(-len(examples), len(examples) - 1))
    assert found[index] == examples[index]
    for beyond in (len(examples), -len(examples) - 1):
        with pytest.raises(IndexError):
            found[beyond]


@given(rows)
def test_the_hash_is_that_of_the_examples_in_memory(examples: list[Example]) -> None:
    whole = []
    for e in examples:
        token_labels = {key: list(values) for key, values in e.token_labels.items()}
        whole.append([e.split, e.text, e.token_ids, dict(e.labels), token_labels, None, None])
    assert hash_examples(examples) == sha256_of_json(whole) == spooled(examples).sha256
    assert Dataset("text", "x", {}, tuple(examples)).sha256 == spooled(examples).sha256


def test_the_file_goes_with_the_examples_or_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = spooled([example([1])])
    assert os.name == "nt" or not list(tmp_path.iterdir())
    assert found[0] == example([1])
    with pytest.raises(KeyError), ExampleSpool("text", (), (), Texts()) as spool:
        spool.add(example([1]))
        raise KeyError
    assert os.name == "nt" or not list(tmp_path.iterdir())


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write_batch(self, batch: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spooling.pa.ipc, "new_file", lambda *arguments: Full())
    with pytest.raises(CaptureError, match=r"No space left(.|\n)*TMPDIR="):
        spooled([example([1])])


def test_memory_does_not_grow_with_the_tokens() -> None:
    def peak(n_examples: int) -> tuple[int, int]:
        tracemalloc.start()
        arrow = pa.total_allocated_bytes()
        with ExampleSpool("text", ("a", "b"), ("tag",), Texts()) as spool:
            for number in range(n_examples):
                spool.add(example(list(range(number % 3, 12)), "word " * 9, a=str(number)))
            found = spool.finish()
        data = Dataset("text", "x", {}, found)
        counted = survey(data, TokenSelection.parse("label:tag=odd"))
        units, _ = divide(counted, 1000, 16)
        for unit in units[:: max(1, len(units) // 20)]:
            part = found[unit.first_example : unit.end_example]
            assert sum(map(len, part)) == unit.n_tokens
        assert data.n_tokens == counted.n_tokens
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, pa.total_allocated_bytes() - arrow

    peak(100)
    (few, _), (many, arrow) = peak(2_500), peak(20_000)
    # Two numbers for each example and a span for each unit may add up, the 200,000 tokens not.
    assert many - few < 17_500 * 40, (few, many)
    assert many < 8 << 20 and arrow < 1 << 20
