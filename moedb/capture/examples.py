"""What a job gives to a capture: examples, as token ids with labels."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Example:
    """One input of a model: a text as tokens, or an image as one token without id and text.

    Attributes
    ----------
    split, text
        As in the table ``examples``.
    token_ids, tokens
        The tokens' ids and texts.
    labels
        The example's labels.
    token_labels
        For each key a value for each token; None where a token has none.
    target_id, foil_id
        The token that should follow, or the image's class, and the token it is weighed against;
        None for plain text.
    """

    split: str
    text: str | None
    token_ids: tuple[int | None, ...]
    tokens: tuple[str | None, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    token_labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    target_id: int | None = None
    foil_id: int | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)

    @property
    def has_target(self) -> bool:
        """Whether there is a right answer."""
        return self.target_id is not None

    @property
    def has_foil(self) -> bool:
        """Whether the right answer is weighed against another."""
        return self.target_id is not None and self.foil_id is not None


class ExamplesHash:
    """A hash over examples that come one by one: texts, tokens, labels, targets.

    It is the SHA-256 of one JSON array with an array for each example, never held as a whole.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256(b"[")
        self._separator = b""

    def add(self, example: Example) -> None:
        """Take the next example in."""
        content = [
            example.split,
            example.text,
            example.token_ids,
            dict(example.labels),
            {key: list(values) for key, values in example.token_labels.items()},
            example.target_id,
            example.foil_id,
        ]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self._digest.update(self._separator + text.encode())
        self._separator = b","

    def hexdigest(self) -> str:
        """The hash over the examples so far."""
        whole = self._digest.copy()
        whole.update(b"]")
        return whole.hexdigest()


def hash_examples(examples: Iterable[Example]) -> str:
    """Hash examples: texts, tokens, labels, targets."""
    found = ExamplesHash()
    for example in examples:
        found.add(example)
    return found.hexdigest()


class StoredExamples(Sequence[Example]):
    """Examples that are not in memory, and know what only a pass over all of them would tell."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """What :func:`hash_examples` gives for them."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Tokens over all examples."""


@dataclass(frozen=True)
class Dataset:
    """The examples of a capture, in order; an example's id is its index.

    Attributes
    ----------
    job
        The kind of capture.
    name
        What the examples are, in words.
    config
        The settings that made them, resolved.
    examples
        The examples: a tuple, or :class:`StoredExamples` where they may not fit into memory.
        Whoever walks over them keeps none.
    notes
        What the user should know about how they were made.
    """

    job: str
    name: str
    config: Mapping[str, Any]
    examples: Sequence[Example]
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @cached_property
    def sha256(self) -> str:
        """Hash over the examples: texts, tokens, labels, targets."""
        if isinstance(self.examples, StoredExamples):
            return self.examples.sha256
        return hash_examples(self.examples)

    @cached_property
    def n_tokens(self) -> int:
        """Tokens over all examples."""
        if isinstance(self.examples, StoredExamples):
            return self.examples.n_tokens
        return sum(len(example) for example in self.examples)
