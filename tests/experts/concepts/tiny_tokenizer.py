"""A tokenizer made by hand: words with the blank before them, single digits and marks."""

import re

_TOKEN = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]|_|\n|[ \t]+")


def tokens_of(text: str) -> list[str]:
    """The tokens of a text; they add up to it."""
    found = _TOKEN.findall(text)
    assert "".join(found) == text
    return found
