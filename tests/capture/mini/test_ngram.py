import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moedb.capture.mini.card.ngram import NGramModel
from moedb.errors import UsageError


def test_unigram_by_hand():
    # counts a 3, b 1 of 4 tokens; D 0.5, 2 types, uniform 1/3
    model = NGramModel([np.array([0, 0, 1, 0])], 1, 3, discount=0.5)
    lower = 0.5 * 2 / 4 / 3
    assert np.exp(model.log_probabilities(np.array([0, 1, 2]))) == pytest.approx(
        [2.5 / 4 + lower, 0.5 / 4 + lower, lower]
    )


def test_bigram_by_hand():
    # "a b a b": bigrams <s>a 1, ab 2, ba 1. Continuation counts: a after {<s>, b} 2, b after
    # {a} 1.
    model = NGramModel([np.array([0, 1, 0, 1])], 2, 3, discount=0.5)
    uniform = 1 / 3
    p_a = 1.5 / 3 + 0.5 * 2 / 3 * uniform
    p_b = 0.5 / 3 + 0.5 * 2 / 3 * uniform
    p_c = 0.5 * 2 / 3 * uniform
    start_a = 0.5 / 1 + 0.5 * 1 / 1 * p_a
    b_after_a = 1.5 / 2 + 0.5 * 1 / 2 * p_b
    c_after_b = 0.5 * 1 / 1 * p_c
    after_unseen = p_a
    found = np.exp(model.log_probabilities(np.array([0, 1, 2, 0])))
    assert found == pytest.approx([start_a, b_after_a, c_after_b, after_unseen])


def test_discount_is_estimated_from_counts_of_counts():
    # unigram counts: 0 three times, 1 twice, 2 once, 3 once -> n1 2, n2 1 -> 2 / 4
    text = np.array([0, 0, 0, 1, 1, 2, 3])
    estimated = NGramModel([text], 1, 5).log_probabilities(text)
    given_half = NGramModel([text], 1, 5, discount=0.5).log_probabilities(text)
    assert estimated == pytest.approx(given_half)


@settings(max_examples=30)
@given(
    pieces=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=4),
    context=st.lists(st.integers(0, 4), max_size=5),
    order=st.integers(1, 5),
)
def test_probabilities_sum_to_one(pieces, context, order):
    model = NGramModel([np.array(p) for p in pieces], order, 5)
    last = [np.exp(model.log_probabilities(np.array([*context, w]))[-1]) for w in range(5)]
    assert sum(last) == pytest.approx(1.0)


def test_more_context_helps_on_repetitive_text():
    text = np.array([0, 1, 2, 3] * 50)
    other = np.array([0, 1, 2, 3] * 5)
    losses = [-NGramModel([text], n, 4).log_probabilities(other).mean() for n in (1, 2)]
    assert losses[1] < 0.3 * losses[0]


@pytest.mark.parametrize(("order", "vocab_size"), [(0, 10), (6, 4096)])
def test_refuses_orders_it_cannot_count(order, vocab_size):
    with pytest.raises(UsageError, match=f"order {order}"):
        NGramModel([np.array([1])], order, vocab_size)


def test_refuses_an_empty_text():
    with pytest.raises(UsageError, match="no text"):
        NGramModel([], 2, 10)
