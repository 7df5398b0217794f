"""Words for synthetic text: ids by Zipf's law, a text and a usual part of speech for each."""

import itertools

import numpy as np
from numpy.typing import NDArray

SIZE = 50_000
N_GROUPS = 256
TAGS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
USUAL = 0.85
"""Share of a token's occurrences that have its usual tag."""


class Vocabulary:
    """The token ids, which are their ranks by frequency.

    Attributes
    ----------
    texts
        (id,) their texts, all different.
    groups
        (id,) which of ``n_groups`` groups of alike tokens each is in: routers know these.
    tags
        The tags.
    """

    n_groups = N_GROUPS

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        syllables = [c + v for c in "bdfghklmnprstvz" for v in "aeiou"]
        words = itertools.chain.from_iterable(
            itertools.product(syllables, repeat=n) for n in (1, 2, 3)
        )
        texts = [" " + "".join(word) for word in itertools.islice(words, SIZE)]
        self.texts: NDArray[np.object_] = np.array(texts, object)
        self.tags: NDArray[np.object_] = np.array(TAGS, object)
        self.groups: NDArray[np.int64] = rng.integers(0, N_GROUPS, SIZE)
        self._shares = rng.dirichlet(np.full(len(TAGS), 2.0)).cumsum()
        self._usual = self._drawn_tags(rng, SIZE)
        self._frequencies = (1 / (np.arange(SIZE) + 2.7) ** 1.07).cumsum()

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """Draw the ids of ``n`` tokens."""
        return np.searchsorted(self._frequencies, rng.random(n) * self._frequencies[-1])

    def tags_of(self, rng: np.random.Generator, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tag of each of these tokens, as a place in ``tags``."""
        usual = rng.random(len(ids)) < USUAL
        return np.where(usual, self._usual[ids], self._drawn_tags(rng, len(ids)))

    def _drawn_tags(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        found = np.searchsorted(self._shares, rng.random(n) * self._shares[-1])
        return np.asarray(found, np.int64)
