"""What a file of labels says, before anybody has looked at the run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moedb.errors import UsageError
from moedb.experts.labelling.drawing import NEGATIVES
from moedb.experts.labelling.rows import IMPORTED

Kind = Literal["detection", "fuzzing"]

AGAINST = (*NEGATIVES, IMPORTED)
"""Kinds of negative contexts that a file may name."""

MOST_LABEL, MOST_TEXT = 2000, 20_000
"""Characters that are kept of a label, and of a context."""


@dataclass(frozen=True)
class Judged:
    """A verdict on a context.

    Attributes
    ----------
    kind
        ``detection`` or ``fuzzing``.
    is_positive
        Whether the context is one of the expert.
    says_yes, other_says_yes
        Whether the label, and that of another expert, was said to fit; None without a verdict.
    against
        The kind of a negative context; empty for a positive one.
    text
        The context, as far as the file has it.
    token_idx
        The run's token that it is of; None where the file does not say.
    has_others
        Whether it holds other tokens that chose the expert; None where the file does not say.
    where
        Where the file says it.
    """

    kind: Kind
    is_positive: bool
    says_yes: bool | None
    against: str = ""
    text: str | None = None
    token_idx: int | None = None
    other_says_yes: bool | None = None
    has_others: bool | None = None
    where: str = ""


@dataclass
class FoundLabel:
    """A label of an expert.

    Attributes
    ----------
    layer
        The layer's number, or the name of a module of the model.
    expert
        The expert.
    label
        The label, None where whoever made the file had none.
    where
        Where the file says it.
    model
        Who read the contexts, where the file says that.
    verdicts
        What was judged.
    """

    layer: int | str
    expert: int
    label: str | None
    where: str
    model: str | None = None
    verdicts: list[Judged] = field(default_factory=list)


@dataclass
class FoundLabels:
    """All that files say.

    Attributes
    ----------
    labels
        The labels.
    about
        The name of the model that the labels are of, where the files say it.
    passed_over
        What was not taken, and how often.
    """

    labels: list[FoundLabel] = field(default_factory=list)
    about: str | None = None
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Choices:
    """What the user says of files that do not say it themselves.

    Attributes
    ----------
    layer
        The layer that the labels are of.
    model
        The name of the model whose labels are taken out of a file with those of several.
    """

    layer: int | None = None
    model: str | None = None


def one_line(text: str, most: int = MOST_LABEL) -> str:
    """A text on one line, with blanks for what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]


def label_or_none(value: object, where: str) -> str | None:
    """The label that a file gives; None for null or one without a letter or digit.

    Raises
    ------
    UsageError
        If it is no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{where}: the label is no text: {shown(value)}")
    label = one_line(value)
    return label if any(character.isalnum() for character in label) else None


def text_or_none(value: object) -> str | None:
    """The text of a context, as it can be stored; None where there is none."""
    if not isinstance(value, str) or not value:
        return None
    kept = value.encode(errors="replace").decode()[:MOST_TEXT]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in kept)


def number_of(value: object, what: str, where: str) -> int:
    """A number from 0 on, written as a number or in digits.

    Raises
    ------
    UsageError
        If it is none.
    """
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:20])
    if type(value) is not int or not 0 <= value < 2**31:
        raise UsageError(f"{where}: {what} is no number from 0 on: {shown(value)}")
    return value


def truth_of(value: object, what: str, where: str) -> bool | None:
    """True, false or None, in any of the usual spellings.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if isinstance(value, str):
        value = _SPELLED.get(value.strip().lower(), value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise UsageError(f"{where}: {what} is neither true nor false: {shown(value)}")


_SPELLED: Mapping[str, Any] = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
    **dict.fromkeys(("", "null", "none", "nan"), None),
}


def shown(value: object) -> str:
    """A value of a file, for an error."""
    return one_line(repr(value), 60)
