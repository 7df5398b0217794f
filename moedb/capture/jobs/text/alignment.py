"""Words in texts, and words of tokens, by the places of their characters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moedb.capture.jobs.text.windows import Offsets

LARGEST_CONTRACTION = 4
"""Words that one stretch of letters may stand for."""


@dataclass(frozen=True)
class Stretch:
    """Characters of a text and the words they are: one word, or several for a contraction.

    Attributes
    ----------
    start, end
        The characters, ``text[start:end]``.
    first, last
        The first word, and the one after the last.
    """

    start: int
    end: int
    first: int
    last: int


class WordNotFoundError(ValueError):
    """A word is not where it would have to stand in the text.

    Parameters
    ----------
    word
        The word's number.
    position
        The character of the text at which it was expected.
    """

    def __init__(self, word: int, position: int) -> None:
        super().__init__(f"word {word} is not at character {position}")
        self.word = word
        self.position = position


def locate_words(text: str, words: Sequence[str], *, join: bool = False) -> list[Stretch]:
    """Find each word in the text, beginning where the last one ended.

    Between two words stand blanks and punctuation at most, never a letter or digit; a blank in a
    word is any run of blanks in the text.

    Parameters
    ----------
    text, words
        The text and its words, in order.
    join
        Where words are not in the text, take the run of letters there as their contraction:
        French *du* for *de* and *le*. The words after it must be in the text again.

    Raises
    ------
    WordNotFoundError
        If a word is not there.
    """
    found: list[Stretch] = []
    position = word = 0
    while word < len(words):
        span = _find(text, words[word], position)
        if span is not None:
            found.append(Stretch(*span, word, word + 1))
            word += 1
        elif join and (joined := _contraction(text, words, found, position, word)) is not None:
            while found and found[-1].start >= joined.start:
                found.pop()
            found.append(joined)
            word = joined.last
        else:
            raise WordNotFoundError(word, position)
        position = found[-1].end
    return found


def _find(text: str, word: str, position: int) -> tuple[int, int] | None:
    pattern = re.compile(r"\s+".join(re.escape(part) for part in word.split()))
    while pattern.pattern:
        match = pattern.match(text, position)
        if match is not None:
            return match.span()
        if position >= len(text) or text[position].isalnum():
            return None
        position += 1
    return None


def _contraction(
    text: str, words: Sequence[str], found: Sequence[Stretch], position: int, word: int
) -> Stretch | None:
    """The run of letters at ``position`` as one stretch, if the words after it are found again."""
    while position < len(text) and not text[position].isalnum():
        position += 1
    start = position
    while start and text[start - 1].isalnum():
        start -= 1
    # Words that were found in the same run were found by chance: the "de" of "des".
    inside = [stretch for stretch in found if stretch.start >= start]
    first = inside[0].first if inside else word
    if found and not inside and found[-1].end > start:
        return None
    return _joined(text, words, start, first, depth=2)


def _joined(text: str, words: Sequence[str], start: int, first: int, depth: int) -> Stretch | None:
    end = start
    while end < len(text) and text[end].isalnum():
        end += 1
    if end == start or not depth:
        return None
    candidates = [
        last
        for last in range(first + 2, min(first + LARGEST_CONTRACTION, len(words)) + 1)
        if _may_stand_for(text[start:end], words[first:last])
    ]
    for last in candidates:
        if last == len(words):
            goes_on = not any(character.isalnum() for character in text[end:])
        else:
            goes_on = _find(text, words[last], end) is not None
        if goes_on:
            return Stretch(start, end, first, last)
    for last in candidates:
        following = end
        while following < len(text) and not text[following].isalnum():
            following += 1
        if _joined(text, words, following, last, depth - 1) is not None:
            return Stretch(start, end, first, last)
    return None


def _may_stand_for(run: str, words: Sequence[str]) -> bool:
    """Whether a run of letters may be a contraction of words: it is shorter, and all are words."""
    spelled = all(any(character.isalnum() for character in word) for word in words)
    return spelled and len(run) <= sum(len(word) for word in words)


def stretches_of_tokens(
    text: str, offsets: Offsets, stretches: Sequence[Stretch]
) -> list[int | None]:
    """For each token the stretch that it is in; None for blanks, and what lies between words.

    A token that reaches over several words belongs to the first of them: that of the first of its
    characters that is in a word.

    Parameters
    ----------
    text
        The text.
    offsets
        For each token its characters, in order.
    stretches
        The words' places, in order.
    """
    owners: list[int | None] = []
    current = 0
    for start, end in offsets:
        while current < len(stretches) and stretches[current].end <= start:
            current += 1
        # Blanks in a word are no reason to count a token that is all blank to it.
        inside = current < len(stretches) and stretches[current].start < end
        owners.append(current if inside and text[start:end].strip() else None)
    return owners


def stretch_labels(stretches: Sequence[Stretch], values: Sequence[str | None]) -> list[str | None]:
    """For each stretch the label of its word, or those of its words, joined: ``ADP+DET``."""
    return [
        "+".join(value for value in values[s.first : s.last] if value is not None) or None
        for s in stretches
    ]
