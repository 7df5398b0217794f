"""Words in texts, and the labels of their tokens."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.capture.jobs.text.alignment import (
    Stretch,
    WordNotFoundError,
    locate_words,
    stretch_labels,
    stretches_of_tokens,
)

# A text, and its words with blanks between; "_" is a blank in a word.
GERMAN = (
    "Über die Straße, »müßig«, fährt Jörgs Großmutter   nach Köln-Süd (1999).",
    "Über die Straße , » müßig « , fährt Jörgs Großmutter nach Köln - Süd ( 1999 ) .",
)
FRENCH = (
    "L'homme naïf n'a-t-il pas mangé d’œufs aujourd'hui ? 10\u00a0000 fois : «\u00a0non\u00a0» !",
    "L' homme naïf n' a -t-il pas mangé d’ œufs aujourd'hui ? 10_000 fois : « non » !",
)
ENGLISH = ("I don't know... (really?!)", "I do n't know ... ( really ?! )")


def labels_by_character(
    text: str, words: list[str], offsets: list[tuple[int, int]]
) -> list[str | None]:
    """Recomputed one character at a time: the word of a token's first character in a word."""
    owner: list[int | None] = [None] * len(text)
    rest = iter([(w, c) for w, word in enumerate(words) for c in word if not c.isspace()])
    for position, character in enumerate(text):
        if not character.isspace():
            word, expected = next(rest)
            assert character == expected
            owner[position] = word
    labels: list[str | None] = []
    for start, end in offsets:
        owners = [owner[position] for position in range(start, end)]
        known = [f"W{word}" for word in owners if word is not None]
        labels.append(known[0] if known else None)
    return labels


@pytest.mark.parametrize(("text", "listed"), [GERMAN, FRENCH, ENGLISH])
def test_each_token_of_a_word_has_its_label(tokenizer: Any, text: str, listed: str) -> None:
    words = [word.replace("_", " ") for word in listed.split()]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    stretches = locate_words(text, words)
    values = stretch_labels(stretches, [f"W{word}" for word in range(len(words))])
    owners = stretches_of_tokens(text, offsets, stretches)
    found = [None if owner is None else values[owner] for owner in owners]
    assert found == labels_by_character(text, words, offsets)
    # Every word has tokens, but those that share one with the word before.
    assert len({value for value in found if value}) >= len(words) - 4


@given(st.lists(st.text("aeßü'-.,(1", min_size=1, max_size=5), max_size=12), st.data())
def test_words_are_found_whatever_blanks_are_between_them(
    words: list[str], data: st.DataObject
) -> None:
    blanks = st.sampled_from(["", " ", "\n", "\u00a0  "])
    text, spans = "", []
    for word in words:
        text += data.draw(blanks)
        spans.append(Stretch(len(text), len(text) + len(word), len(spans), len(spans) + 1))
        text += word
    assert locate_words(text + data.draw(blanks), words) == spans


def test_tokens_with_their_blank_before_them_and_blank_tokens() -> None:
    text = "ab  cd"
    stretches = locate_words(text, ["ab", "cd"])
    assert stretches_of_tokens(text, [(0, 2), (2, 3), (3, 5), (5, 6)], stretches) == [0, None, 1, 1]
    assert stretches_of_tokens(text, [(0, 2), (4, 4), (4, 6)], stretches) == [0, None, 1]
    assert stretches_of_tokens(text, [(0, 6)], stretches) == [0]
    assert stretches_of_tokens(text, [(0, 2)], []) == [None]


def test_punctuation_may_be_left_out_of_the_words_and_letters_may_not() -> None:
    assert locate_words("“Well,” he said.", ["Well", "he", "said"]) == [
        Stretch(1, 5, 0, 1),
        Stretch(8, 10, 1, 2),
        Stretch(11, 15, 2, 3),
    ]
    for text, words, word, position in (
        ("im Ministerium", ["in", "dem", "Ministerium"], 0, 0),
        ("a b c", ["a", "c"], 1, 1),
        ("a", ["a", "b"], 1, 1),
        ("", ["a"], 0, 0),
    ):
        with pytest.raises(WordNotFoundError) as caught:
            locate_words(text, words)
        assert (caught.value.word, caught.value.position) == (word, position)


@pytest.mark.parametrize(
    ("text", "words", "joined"),
    [
        ("im Ministerium", "in dem Ministerium", {"im": "in dem"}),
        ("le but des lois.", "le but de les lois .", {"des": "de les"}),
        ("jusqu'au pire du pire", "jusqu' à le pire de le pire", {"au": "à le", "du": "de le"}),
        ("geht (zum Teil) am", "geht ( zu dem Teil ) an dem", {"zum": "zu dem", "am": "an dem"}),
        ("zum am Ende", "zu dem an dem Ende", {"zum": "zu dem", "am": "an dem"}),
        ("dárselo ya", "dar se lo ya", {"dárselo": "dar se lo"}),
    ],
)
def test_contractions_are_joined(text: str, words: str, joined: dict[str, str]) -> None:
    parts = words.split()
    found = locate_words(text, parts, join=True)
    several = [s for s in found if s.last > s.first + 1]
    assert {text[s.start : s.end]: " ".join(parts[s.first : s.last]) for s in several} == joined
    assert [s.first for s in found] == [0, *(s.last for s in found[:-1])]
    labels = stretch_labels(several, ["X", *"A" * (len(parts) - 1)])
    assert all("+" in (label or "") for label in labels)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a b c", "a c"), ("x y z", "p q r s t u"), ("im", "in"), ("one two", "three two")],
)
def test_what_is_no_contraction_is_not_joined(text: str, words: str) -> None:
    with pytest.raises(WordNotFoundError):
        locate_words(text, words.split(), join=True)
