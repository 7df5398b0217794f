"""Interpolated Kneser-Ney n-gram models over tokens: what a language model has to beat.

Kneser and Ney 1995, in the interpolated form of Chen and Goodman 1998 with one discount per order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moedb.capture.mini.corpus import IntArray
from moedb.errors import UsageError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """Counts of one order, sorted by key. An n-gram's key is its tokens in base vocabulary + 1."""

    keys: IntArray
    counts: FloatArray
    contexts: IntArray
    context_totals: FloatArray
    context_types: FloatArray
    discount: float


class NGramModel:
    """An n-gram model; of order 1, a unigram model.

    ``p(w | h) = max(c(h w) - D, 0) / c(h) + D t(h) / c(h) * p(w | shorter h)``, where the highest
    order counts occurrences, lower ones count the distinct tokens seen before the n-gram, and t(h)
    is the number of distinct tokens after h. Below the unigrams stands 1 / vocabulary.

    Parameters
    ----------
    pieces : sequence of int64[token]
        What to count. Each piece stands alone: nothing is carried over from the one before.
    order : int
        Longest n-gram.
    vocab_size : int
        Number of tokens.
    discount : float, optional
        D for every order; without it, ``n1 / (n1 + 2 n2)`` of each order's counts of counts.

    Raises
    ------
    UsageError
        When an n-gram does not fit in 63 bits, or there is nothing to count.
    """

    def __init__(
        self,
        pieces: Sequence[IntArray],
        order: int,
        vocab_size: int,
        *,
        discount: float | None = None,
    ) -> None:
        self.order = order
        self.vocab_size = vocab_size
        self._base = vocab_size + 1
        if order < 1 or self._base**order >= 2**63:
            raise UsageError(
                f"order {order} with {vocab_size} tokens; valid: at least 1, and (tokens + 1) to "
                "the power of the order below 2^63"
            )
        if not pieces:
            raise UsageError("no text to count n-grams in; give at least one piece")
        keys, counts = np.unique(
            np.concatenate([self._keys(piece) for piece in pieces]), return_counts=True
        )
        self._orders: list[_Order] = []
        for length in range(order, 0, -1):
            self._orders.insert(0, self._counted(keys, counts.astype(np.float64), discount))
            keys, counts = np.unique(keys % self._base ** (length - 1), return_counts=True)

    def _keys(self, piece: IntArray) -> IntArray:
        """Key of the longest n-gram that ends at each token; before the text stand start tokens."""
        start = np.full(self.order - 1, self.vocab_size, dtype=np.int64)
        padded = np.concatenate([start, np.asarray(piece, dtype=np.int64)])
        keys = np.zeros(len(piece), dtype=np.int64)
        for offset in range(self.order):
            keys = keys * self._base + padded[offset : offset + len(piece)]
        return keys

    def _counted(self, keys: IntArray, counts: FloatArray, discount: float | None) -> _Order:
        if discount is None:
            once, twice = float((counts == 1).sum()), float((counts == 2).sum())
            discount = once / (once + 2 * twice) if once and twice else 0.75
        contexts, index = np.unique(keys // self._base, return_inverse=True)
        return _Order(
            keys=keys,
            counts=counts,
            contexts=contexts,
            context_totals=np.bincount(index, weights=counts).astype(np.float64),
            context_types=np.bincount(index).astype(np.float64),
            discount=discount,
        )

    def log_probabilities(self, piece: IntArray) -> FloatArray:
        """Return ln p of each token of a piece given those before it.

        Parameters
        ----------
        piece : int64[token]
            Tokens below vocab_size.

        Returns
        -------
        float64[token]
        """
        full = self._keys(piece)
        p = np.full(len(piece), 1.0 / self.vocab_size)
        for length, order in enumerate(self._orders, start=1):
            keys = full % self._base**length
            counts = _look_up(order.keys, order.counts, keys)
            totals = _look_up(order.contexts, order.context_totals, keys // self._base)
            types = _look_up(order.contexts, order.context_types, keys // self._base)
            known = totals > 0
            own = np.maximum(counts[known] - order.discount, 0.0)
            p[known] = (own + order.discount * types[known] * p[known]) / totals[known]
        log_p: FloatArray = np.log(p)
        return log_p


def _look_up(keys: IntArray, values: FloatArray, wanted: IntArray) -> FloatArray:
    position = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.zeros(len(wanted))
    matches = keys[position] == wanted
    found[matches] = values[position[matches]]
    return found
