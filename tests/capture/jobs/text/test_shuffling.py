"""Shuffling a stream."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from moedb.capture.jobs.text.documents import Document
from moedb.capture.jobs.text.shuffling import shuffled


def documents(n: int, size: int = 1) -> list[Document]:
    return [Document(row, f"row {row}", "x" * size, {}, None, {}) for row in range(n)]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 60), st.integers(0, 9))
def test_each_comes_once_and_none_much_too_early(
    n: int, n_documents: int, n_characters: int, seed: int
) -> None:
    def rows() -> list[int]:
        limits = {"n_documents": n_documents, "n_characters": n_characters}
        return [document.row for document in shuffled(documents(n, 5), seed, **limits)]

    found = rows()
    assert found == rows()
    assert sorted(found) == list(range(n))
    assert all(row <= place + n_documents for place, row in enumerate(found))


def test_seeds_differ_and_a_small_dataset_is_shuffled_evenly() -> None:
    orders = [tuple(d.row for d in shuffled(documents(4), seed)) for seed in range(2400)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 24 and min(counts) > 60 and max(counts) < 150


def test_it_reads_no_more_than_it_has_to() -> None:
    read = []

    def stream() -> Iterator[Document]:
        for document in documents(1000):
            read.append(document.row)
            yield document

    assert next(shuffled(stream(), 0, n_documents=10)).row <= 10
    assert len(read) == 11
