"""The kinds of rules that no pattern can say: depth, repetition, place, script, pieces of words."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.experts.concepts.piece import Piece
from moedb.experts.concepts.rule_file import Rule


class Labels(NamedTuple):
    """What a rule gives the tokens of a piece.

    Attributes
    ----------
    token
        (label,): the tokens, by their number in the piece, ascending.
    value
        (label,): for each the number of its value.
    values
        The values.
    """

    token: NDArray[np.int64]
    value: NDArray[np.int64]
    values: tuple[str, ...]


def _is(holds: NDArray[np.bool_]) -> Labels:
    token = np.flatnonzero(holds).astype(np.int64)
    return Labels(token, np.zeros(len(token), np.int64), ("yes",))


def depth(piece: Piece, rule: Rule) -> Labels:
    """How many pairs of brackets a token is in; the brackets themselves are in theirs.

    A bracket that has no partner in its example counts for nothing. A token counts as its deepest
    character.
    """
    of_character = _depths(piece, rule.pairs)
    ink = ~piece.is_blank
    found = sum(
        (piece.counts((of_character >= level) & ink) > 0).astype(np.int64)
        for level in range(1, rule.most + 1)
    )
    token = np.flatnonzero(found)
    return Labels(token.astype(np.int64), np.asarray(found)[token] - 1, rule.value_names)


def _depths(piece: Piece, pairs: tuple[str, ...]) -> NDArray[np.int64]:
    closing = {pair[1]: pair[0] for pair in pairs}
    opening = {pair[0] for pair in pairs}
    places = np.flatnonzero(
        piece.where(lambda character: character in closing or character in opening)
    )
    owners = np.searchsorted(piece.text_starts, places, side="right")
    change = np.zeros(len(piece.codes) + 1, np.int64)
    text, stack = -1, list[tuple[str, int]]()
    for place, owner in zip(places.tolist(), owners.tolist(), strict=True):
        if owner != text:
            text, stack = owner, []
        character = chr(piece.codes[place])
        if character in opening:
            stack.append((character, place))
            continue
        partner = closing[character]
        if any(opened == partner for opened, _ in stack):
            while stack:
                opened, begin = stack.pop()
                if opened == partner:
                    change[begin] += 1
                    change[place + 1] -= 1
                    break
    return np.cumsum(change)[:-1]


def repeat(piece: Piece, rule: Rule) -> Labels:
    """Tokens whose id has been in their example before."""
    return _is(_seen_before(piece.text, piece.token_id) & (piece.token_id >= 0))


def induction(piece: Piece, rule: Rule) -> Labels:
    """Tokens that came after the token before them earlier in their example, too."""
    n = len(piece.token_id)
    follows = np.zeros(n, np.bool_)
    follows[1:] = (piece.text[1:] == piece.text[:-1]) & (piece.token_id[:-1] >= 0)
    follows &= piece.token_id >= 0
    before = np.zeros(n, np.int64)
    before[1:] = piece.token_id[:-1]
    found = np.zeros(n, np.bool_)
    pairs = (before << 32 | piece.token_id)[follows]
    found[follows] = _seen_before(piece.text[follows], pairs)
    return _is(found)


def _seen_before(text: NDArray[np.int64], what: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(what):
        return np.zeros(0, np.bool_)
    names, number = np.unique(what, return_inverse=True)
    _, first = np.unique(text * len(names) + number, return_index=True)
    found = np.ones(len(what), np.bool_)
    found[first] = False
    return found


def position(piece: Piece, rule: Rule) -> Labels:
    """Every token by where it is in its example, counted from 0."""
    value = np.searchsorted(np.array(rule.edges), piece.position, side="right")
    token = np.arange(len(value), dtype=np.int64)
    return Labels(token, value.astype(np.int64), rule.value_names)


_SCRIPTS = frozenset(
    """arabic armenian bengali cherokee cyrillic devanagari ethiopic georgian greek gujarati
    gurmukhi hangul hebrew hiragana kannada katakana khmer lao latin malayalam mongolian myanmar
    sinhala tamil telugu thai tibetan""".split()  # noqa: SIM905
)


def script(piece: Piece, rule: Rule) -> Labels:
    """The script of most of a token's letters; of several the first by name."""
    found, inverse = piece.distinct
    names = [_script_of(chr(code)) for code in found]
    scripts = tuple(sorted({name for name in names if name}))
    if not scripts:
        return _is(np.zeros(len(piece.token_idx), np.bool_))
    counts = np.stack(
        [piece.counts(np.array([n == name for n in names], np.bool_)[inverse]) for name in scripts]
    )
    token = np.flatnonzero(counts.max(axis=0))
    return Labels(token.astype(np.int64), counts.argmax(axis=0)[token], scripts)


def _script_of(character: str) -> str:
    if not character.isalpha():
        return ""
    words = unicodedata.name(character, "").lower().split()
    if words[:1] == ["cjk"]:
        return "han"
    return next((word for word in words if word in _SCRIPTS), "other")


def word_piece(piece: Piece, rule: Rule) -> Labels:
    """Tokens that go on with a word: a letter or digit comes first, and stands before them too."""
    letters = np.append(piece.where(str.isalnum), False)
    start, has_text = piece.start, piece.end > piece.start
    is_first = start == piece.text_starts[piece.text]
    before = np.where(is_first, False, letters[start - 1])
    # a token that begins within a character goes on with it
    shares = np.zeros(len(start), np.bool_)
    shares[1:] = (piece.end[:-1] > start[1:]) & (piece.text[1:] == piece.text[:-1])
    return _is(has_text & letters[start] & (before | shares))


STRUCTURAL: Mapping[str, Callable[[Piece, Rule], Labels]] = {
    "depth": depth,
    "induction": induction,
    "position": position,
    "repeat": repeat,
    "script": script,
    "word-piece": word_piece,
}
"""For each kind what finds its labels."""
