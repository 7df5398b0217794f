"""Where tokens are in a text, whatever their bytes decode to."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moedb.experts.concepts.alignment import align


def covered(text: str, tokens: list[str]) -> list[str] | None:
    found = align(text, tokens)
    return None if found is None else [text[start:end] for start, end in found]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a b", ["a", " b"], ["a", " b"]),
        ("", [], []),
        # a character in two tokens, and in three of which one has two bytes of it
        ("né!", ["n", "�", "�", "!"], ["n", "é", "é", "!"]),
        ("x 😀", ["x", " �", "��", "�"], ["x", " 😀", "😀", "😀"]),
        # the end of one character and the beginning of the next in one token
        ("中文", ["�", "��", "�"], ["中", "中文", "文"]),
        # blanks that a tokenizer leaves out before words, and tokens that are no text
        ("the cat sat", ["<s>", "the", "cat", "sat", "</s>"], ["", "the", "cat", "sat", ""]),
        # what the text itself holds
        ("a�b", ["a", "�", "b"], ["a", "�", "b"]),
        ("<b> x", ["<b>", " x"], ["<b>", " x"]),
        # windows that are cut within a character
        ("éa", ["�", "a"], ["é", "a"]),
        ("aé", ["a", "�"], ["a", "é"]),
        ("a  ", ["a"], ["a"]),
        # none of the text
        ("abc", ["a", "x"], None),
        ("abc", ["a", "b"], None),
        ("Ab", ["a", "b"], None),
    ],
)
def test_by_hand(text: str, tokens: list[str], expected: list[str] | None) -> None:
    assert covered(text, tokens) == expected


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="aé中😀 \n", max_size=12), st.booleans(), st.data())
def test_bytes_cut_anywhere_belong_to_their_characters(
    given_text: str, is_apart: bool, data: st.DataObject
) -> None:
    text = ".".join(given_text) if is_apart else given_text
    content = text.encode()
    cuts = data.draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=10))
    bounds = [0, *(cut for cut in sorted(cuts) if cut < len(content)), len(content)]
    pairs = [(a, b) for a, b in pairwise(bounds) if b > a]
    owners = [i for i, character in enumerate(text) for _ in character.encode()]
    expected = [(owners[a], owners[b - 1] + 1) for a, b in pairs]
    found = align(text, [content[a:b].decode(errors="replace") for a, b in pairs])
    assert found is not None
    if is_apart:
        assert found == expected
    # of characters side by side nobody can tell whose bytes were lost: one of the two
    for (start, end), (first, last) in zip(found, expected, strict=True):
        assert abs(start - first) <= 1 and abs(end - last) <= 1


def test_ten_thousand_lost_bytes_are_no_trouble() -> None:
    text = "é" * 10_000
    found = align(text, ["�"] * 20_000)
    assert found == [(n // 2, n // 2 + 1) for n in range(20_000)]
