"""What a job gives to a capture: examples, as token ids with labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moedb.store.files import sha256_of_json


@dataclass(frozen=True)
class Example:
    """One input of a language model.

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
        The token that should follow, and the one it is weighed against; None for plain text.
    """

    split: str
    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    token_labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    target_id: int | None = None
    foil_id: int | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)


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
    """

    job: str
    name: str
    config: Mapping[str, Any]
    examples: tuple[Example, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash over the examples: tokens, labels, targets."""
        return sha256_of_json(
            [
                [
                    example.split,
                    example.text,
                    example.token_ids,
                    dict(example.labels),
                    {key: list(values) for key, values in example.token_labels.items()},
                    example.target_id,
                    example.foil_id,
                ]
                for example in self.examples
            ]
        )

    @property
    def n_tokens(self) -> int:
        """Tokens over all examples."""
        return sum(len(example) for example in self.examples)
