import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moedb.capture.jobs.qwen_ioi import is_held_out_pair, load_ioi_templates
from moedb.capture.mini.corpus import (
    CorpusBatches,
    IOIBatches,
    cut_pieces,
    held_out_batches,
    read_corpus,
    split_corpus,
    tokenize_documents,
)
from moedb.errors import DatasetError, UsageError


def test_read_corpus(corpus):
    documents = read_corpus(corpus)
    assert len(documents) == 40
    assert {d.domain for d in documents} == {"fruit", "metal"}


def test_text_alone_will_do(tmp_path):
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"text": ["one", None, "", "two"]}), path)
    documents = read_corpus(path)
    assert [d.text for d in documents] == ["one", "two"]
    assert documents[0].domain == "unknown"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"body": ["x"]}, "no text column"),
        ({"text": [1, 2]}, "holds 1"),
        ({"text": [None, ""]}, "no row"),
    ],
)
def test_bad_corpora(tmp_path, table, message):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(DatasetError, match=message):
        read_corpus(path)


def test_missing_and_damaged_corpora(tmp_path):
    with pytest.raises(UsageError, match="no such corpus"):
        read_corpus(tmp_path / "none.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk PAR1")
    with pytest.raises(UsageError, match="Parquet"):
        read_corpus(tmp_path / "junk.parquet")


def test_split_is_by_text_and_disjoint(corpus):
    documents = read_corpus(corpus)
    train, held_out = split_corpus(documents, 0.2)
    assert train
    assert held_out
    assert not {d.text for d in train} & {d.text for d in held_out}
    assert len(train) + len(held_out) == len(documents)
    assert split_corpus(documents[::-1], 0.2)[0] == train[::-1]


def test_documents_end_with_end_of_text(corpus, tiny_tokenizer):
    documents = read_corpus(corpus)[:5]
    tokens = tokenize_documents(documents, tiny_tokenizer)
    for document, ids in zip(documents, tokens, strict=True):
        assert ids[-1] == tiny_tokenizer.eos_token_id
        assert tiny_tokenizer.decode(ids[:-1]) == document.text


@given(lengths=st.lists(st.integers(1, 70), max_size=8), max_length=st.integers(2, 20))
def test_pieces_hold_every_token_once(lengths, max_length):
    documents = [np.arange(n) + 100 * i for i, n in enumerate(lengths)]
    pieces = cut_pieces(documents, max_length)
    assert all(2 <= len(p) <= max_length for p in pieces)
    lost = [n for n in lengths if n % max_length == 1]
    assert sum(map(len, pieces)) == sum(lengths) - len(lost)
    for piece in pieces:
        assert (np.diff(piece) == 1).all()


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(2, 16), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_every_epoch_has_every_piece_once(lengths, seed):
    pieces = [np.full(n, i + 1) for i, n in enumerate(lengths)]
    batches = CorpusBatches(pieces, tokens_per_batch=32, pad_id=0, seed=seed)
    seen: list[int] = []
    step = 0
    while len(seen) < 2 * len(pieces):
        batch = batches.batch(step)
        assert batch.input_ids.size <= 32
        assert (batch.mask == (batch.input_ids > 0)).all()
        assert (batch.weights == batch.mask).all()
        assert not batch.answers.any()
        seen += batch.input_ids[:, 0].tolist()
        step += 1
    expected = list(range(1, len(pieces) + 1))
    assert sorted(seen[: len(pieces)]) == expected
    assert sorted(seen[len(pieces) :]) == expected
    # a step's batch does not depend on the steps that were asked for before it
    again = CorpusBatches(pieces, tokens_per_batch=32, pad_id=0, seed=seed).batch(step - 1)
    assert (again.input_ids == batch.input_ids).all()


def test_no_pieces():
    with pytest.raises(DatasetError, match="no piece"):
        CorpusBatches([], tokens_per_batch=8, pad_id=0, seed=0)


def test_ioi_batches(tiny_tokenizer):
    templates = load_ioi_templates()
    batches = IOIBatches(
        templates,
        tiny_tokenizer,
        rows_per_batch=64,
        answer_weight=7.0,
        held_out_pair_fraction=0.3,
        seed=0,
    )
    names = set(templates.names)
    for step in range(6):
        batch = batches.batch(step)
        assert (batch.answers.sum(axis=1) == 1).all()
        assert (batch.weights[batch.answers] == 7).all()
        assert (batch.weights[batch.mask & ~batch.answers] == 1).all()
        assert (batch.weights[~batch.mask] == 0).all()
        for row, mask, answer in zip(batch.input_ids, batch.mask, batch.answers, strict=True):
            words = [tiny_tokenizer.decode([t]).strip() for t in row[mask]]
            met = [word for word in words if word in names]
            io = tiny_tokenizer.decode(row[answer]).strip()
            (s,) = set(met) - {io}
            assert met.count(s) == 2
            assert words[-1] == io
            assert not is_held_out_pair(io, s, 0.3)


def test_held_out_batches_cover_all(tiny_tokenizer):
    pieces = [np.arange(1, n) for n in (5, 3, 9, 2, 20, 7)]
    seen = []
    for chosen, ids, mask in held_out_batches(pieces, tokens_per_batch=16, pad_id=0):
        for index, row, kept in zip(chosen, ids, mask, strict=True):
            assert (row[kept] == pieces[index]).all()
            seen.append(index)
    assert sorted(seen) == list(range(6))
