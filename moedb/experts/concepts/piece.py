"""Some examples of a run with their tokens, laid end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """Examples, one after the other; characters and tokens are numbered through.

    Attributes
    ----------
    texts
        The examples' texts.
    token_idx, token_id, position
        (token,): the tokens, as the run has them; ``token_id`` is -1 where there is none.
    text
        (token,): the number of the text that each is of, ascending.
    start, end
        (token,): its characters, among those of all texts; both ascend.
    """

    texts: Sequence[str]
    token_idx: NDArray[np.int64]
    token_id: NDArray[np.int64]
    position: NDArray[np.int64]
    text: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @cached_property
    def text_starts(self) -> NDArray[np.int64]:
        """(text,): the first character of each text."""
        lengths = np.array([len(text) for text in self.texts], np.int64)
        return np.cumsum(lengths) - lengths

    @cached_property
    def codes(self) -> NDArray[np.uint32]:
        """(character,): the characters."""
        return np.frombuffer("".join(self.texts).encode("utf-32-le"), np.uint32)

    @cached_property
    def is_blank(self) -> NDArray[np.bool_]:
        """(character,): whether each is white space."""
        return self.where(str.isspace)

    def where(self, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
        """(character,): whether something holds of each."""
        found, inverse = self.distinct
        return np.array([holds(chr(code)) for code in found], np.bool_)[inverse]

    @cached_property
    def distinct(self) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
        """The characters that occur, and for each character (character,) which of them it is."""
        return np.unique(self.codes, return_inverse=True)

    @cached_property
    def inked(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(token,): start and end of each token without the blanks around it; blank ones whole."""
        return self.without_blanks(self.start, self.end)

    def without_blanks(
        self, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stretches of characters without the blanks around them; those of blanks as they are."""
        following, last = self._ink
        first, beyond = following[start], last[end]
        is_all_blank = first >= beyond
        return np.where(is_all_blank, start, first), np.where(is_all_blank, end, beyond)

    @cached_property
    def _ink(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each place the next that is not blank, and the one after the last before it."""
        n = len(self.codes)
        places = np.arange(n, dtype=np.int64)
        following = np.full(n + 1, n, np.int64)
        following[:n] = np.where(self.is_blank, n, places)
        following = np.minimum.accumulate(following[::-1])[::-1]
        last = np.zeros(n + 1, np.int64)
        last[1:] = np.where(self.is_blank, 0, places + 1)
        return following, np.maximum.accumulate(last)

    def covered(
        self, start: NDArray[np.int64], end: NDArray[np.int64], covers: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens that stretches of characters cover.

        Parameters
        ----------
        start, end
            (stretch,): the characters. Blanks at both ends of one are left out of it.
        covers
            ``any``: tokens that share a character with a stretch. ``all``: tokens of which one has
            every character, blanks around the token left out.

        Returns
        -------
        tuple of numpy.ndarray
            (entry,): tokens, and the stretch of each; a token may be covered by several.
        """
        first, beyond = self.without_blanks(start, end)
        low = np.searchsorted(self.end, first, side="right")
        high = np.searchsorted(self.start, beyond, side="left")
        counts = np.maximum(high - low, 0)
        stretch = np.repeat(np.arange(len(start)), counts)
        token = (
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[stretch]
        )
        is_kept = self.end[token] > self.start[token]
        if covers == "all":
            inked = self.inked
            is_kept &= (inked[0][token] >= start[stretch]) & (inked[1][token] <= end[stretch])
        return token[is_kept], stretch[is_kept]

    def counts(self, of: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(token,): in how many of a token's characters something holds."""
        summed = np.concatenate([[0], np.cumsum(of, dtype=np.int64)])
        return np.asarray(summed[self.end] - summed[self.start])
