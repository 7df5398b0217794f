"""Text from outside that is safe to look at: nothing in it acts on a terminal or is swallowed."""

import re

VISIBLE_SPACE = "␣"
_EDGE_SPACES = re.compile(r"^ +| +$| {2,}")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# letters and marks, by Unicode's categories, of which nothing is drawn
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str) -> str:
    r"""Return text with everything shown that a terminal or a page would act on or swallow.

    A newline becomes the two characters backslash and n, an escape ``\x1b``, other control and
    format characters, fillers and unusual spaces their code points. A space is drawn as ``␣`` where
    it would be lost: at the start, at the end, and in a run of spaces.

    Examples
    --------
    >>> print(visible(" Mary"), visible("a\n"), visible("\x1b[31m"), visible("\u202e"))
    ␣Mary a\n \x1b[31m \u202e
    """
    return _EDGE_SPACES.sub(lambda spaces: VISIBLE_SPACE * len(spaces[0]), _escaped(text))


def visible_lines(text: str) -> str:
    r"""Return a message of several lines with everything shown that a terminal would act on.

    Lines and the spaces in them stay.

    Examples
    --------
    >>> print(visible_lines("no run \x1b[2J\n  moedb runs"))
    no run \x1b[2J
      moedb runs
    """
    return "\n".join(map(_escaped, text.split("\n")))


def _escaped(text: str) -> str:
    if not text.isprintable():
        text = "".join(map(_visible_character, text))
    return _BLANK.sub(lambda found: _code(found[0]), text)


def _visible_character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    return character if character.isprintable() else _code(character)


def _code(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
