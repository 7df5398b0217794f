"""Cutting long documents into windows of tokens."""

from collections.abc import Iterator, Sequence

DEFAULT_MAX_LENGTH = 1024
"""Tokens of a window at most, where neither the user nor the model says less."""

Offsets = Sequence[tuple[int, int]]


def windows(n_tokens: int, max_length: int, stride: int) -> Iterator[range]:
    """Windows over a document: each token is in one at least.

    Parameters
    ----------
    n_tokens
        Tokens of the document.
    max_length
        Tokens of a window at most.
    stride
        Tokens from the start of one window to that of the next; at most ``max_length``.

    Examples
    --------
    >>> list(windows(10, 4, 3))
    [range(0, 4), range(3, 7), range(6, 10)]
    """
    start = 0
    while n_tokens:
        yield range(start, min(start + max_length, n_tokens))
        if start + max_length >= n_tokens:
            return
        start += stride


def window_text(text: str, offsets: Offsets, window: range) -> str:
    """The part of a text that a window's tokens cover, with the blanks before each of them.

    Windows that follow each other without overlap give texts that add up to the document, but for
    a character that is cut in two: both have it.
    """
    begin = end = 0
    if window.start:
        begin = min(offsets[window.start - 1][1], offsets[window.start][0])
    end = len(text) if window.stop == len(offsets) else offsets[window.stop - 1][1]
    return text[begin:end]
