"""Where the tokens of an example stand in its text, by their own texts.

The text of a token is what its id alone decodes to. A token that holds a part of a character's
bytes decodes to U+FFFD, and some tokenizers leave out the blank before a word. So tokens are laid
along the bytes of the text, and each belongs to the characters that its bytes are of.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

Spans = list[tuple[int, int]]
"""For each token its characters, ``text[start:end]``; empty where it is none of the text."""

_LOST = "\ufffd"
_LOST_BYTES = _LOST.encode()
_SPECIAL = (("<", ">"), ("[", "]"))
"""What tokens begin and end with that stand for no text, such as ``<s>``."""


class _Step(NamedTuple):
    """A token laid along the bytes: where it begins, and the step before."""

    start: int
    end: int
    before: "_Step | None"


def align(text: str, tokens: Sequence[str]) -> Spans | None:
    """Find the characters of each token.

    Parameters
    ----------
    text
        The example's text.
    tokens
        The texts of its tokens, in order.

    Returns
    -------
    list of tuple of int or None
        For each token (start, end); several tokens have the same character where each holds some
        of its bytes. Where characters stand side by side whose bytes are cut apart, it may not be
        known which of two a token is of; then it is one of them. None where the tokens are not
        those of the text.

    Examples
    --------
    >>> align("a b", ["a", " b"])
    [(0, 1), (1, 3)]
    >>> align("né", ["n", "\ufffd", "\ufffd"])
    [(0, 1), (1, 2), (1, 2)]
    """
    ends = list(accumulate(map(len, tokens), initial=0))
    if ends[-1] == len(text) and "".join(tokens) == text:
        return list(pairwise(ends))
    content = text.encode()
    found = _laid(content, tokens)
    return None if found is None else _in_characters(text, content, found)


def _laid(content: bytes, tokens: Sequence[str]) -> Spans | None:
    """The bytes of each token."""
    # a window of a document may begin, and end, within a character
    states = {n: _Step(n, n, None) for n in range(len(content)) if _is_inside(content, 0, n)}
    for token in tokens:
        following: dict[int, _Step] = {}
        for step in states.values():
            for start, end in _places(content, step.end, token):
                following.setdefault(end, _Step(start, end, step))
        states = following
        if not states:
            return None
    last = max(
        (step for step in states.values() if _is_end(content, step.end)),
        key=lambda step: step.end,
        default=None,
    )
    if last is None:
        return None
    found: Spans = []
    laid = last
    while laid.before is not None:
        found.append((laid.start, laid.end))
        laid = laid.before
    return found[::-1]


def _places(content: bytes, position: int, token: str) -> Iterator[tuple[int, int]]:
    """Where a token may stand that comes after what ends at a position: begin and end."""
    direct = [(position, end) for end in _matches(content, position, token)]
    if direct:
        yield from direct
        return
    start = position
    while start < len(content) and content[start : start + 1].isspace():
        start += 1
    after_blanks = [(start, end) for end in _matches(content, start, token)]
    if after_blanks:
        yield from after_blanks
    elif any(token.startswith(begin) and token.endswith(end) for begin, end in _SPECIAL):
        yield position, position


def _matches(content: bytes, position: int, token: str) -> set[int]:
    """Where a token may end that begins at a position.

    The text is whole, so a token lacks the beginning of a character at its own beginning alone, and
    the rest of one at its end.
    """
    first, *rest = token.split(_LOST)
    ends = _literal(content, {position}, first.encode())
    for number, part in enumerate(rest, 1):
        is_last = number == len(rest) and not part
        lost = {end for at in ends for end in _lost(content, at, position, is_last)}
        ends = _literal(content, lost, part.encode())
    return ends


def _literal(content: bytes, positions: set[int], part: bytes) -> set[int]:
    return {at + len(part) for at in positions if content.startswith(part, at)}


def _lost(content: bytes, at: int, first: int, is_last: bool) -> Iterator[int]:
    """Where bytes may end that decode to one U+FFFD: a part of a character, or that character.

    Parameters
    ----------
    content
        The text.
    at
        Where they begin.
    first
        Where their token begins.
    is_last
        Whether the token ends with them.
    """
    if at >= len(content):
        return
    if content.startswith(_LOST_BYTES, at):
        yield at + len(_LOST_BYTES)
    if _is_continuation(content[at]):
        if all(_is_continuation(byte) for byte in content[max(first, at - 3) : at]):
            yield at + 1
    elif is_last:
        for n in range(1, _length(content[at])):
            yield at + n


def _in_characters(text: str, content: bytes, spans: Spans) -> Spans:
    """From bytes to characters."""
    if len(content) == len(text):
        return spans
    owners: list[int] = []
    for index, character in enumerate(text):
        owners += [index] * len(character.encode())
    return [
        (owners[start], owners[end - 1] + 1) if end > start else _nowhere(owners, start)
        for start, end in spans
    ]


def _nowhere(owners: list[int], position: int) -> tuple[int, int]:
    at = owners[position] if position < len(owners) else (owners[-1] + 1 if owners else 0)
    return at, at


def _is_continuation(byte: int) -> bool:
    return byte & 0xC0 == 0x80


def _length(byte: int) -> int:
    """Bytes of the character that begins with a byte."""
    return 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


def _is_inside(content: bytes, first: int, position: int) -> bool:
    """Whether a position is at, or within, the character that begins at the first one."""
    return position == first or position < first + _length(content[first])


def _is_end(content: bytes, position: int) -> bool:
    """Whether all of a text is passed: but for blanks, or the rest of a character."""
    rest = content[position:]
    return not rest.strip() or (len(rest) < 4 and all(map(_is_continuation, rest)))
