"""What labels of experts are made with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moedb.errors import UsageError
from moedb.schemas.additions import Addition, check_addition_name

KIND = "expert-labels"
"""The kind of additions that are labels of experts."""

_OWN = ("model", "messages", "stream", "n")
"""Fields of a request that are not the user's to set."""


@dataclass(frozen=True)
class LabelSettings:
    """What labels of experts are made with.

    Attributes
    ----------
    run
        The run, or an unambiguous beginning of its name.
    endpoint
        The address of a server with ``/v1/chat/completions``; None for a model on this machine.
    model
        The reader's name there; of a model on this machine with the beginning of its hash.
    name
        What the labels are called together.
    layers, experts
        Those that are labelled; None for all.
    limit
        Experts at most, of those without a label by now; None for all.
    contexts
        Contexts that an explanation is made from: those with the largest scores.
    window
        Tokens of a context.
    promoted
        Tokens that the expert's output promotes, which are shown with the contexts that explain
        where the run has what tells them; 0 for none.
    scored
        Contexts of each kind that a label is scored on; 0 for no scores.
    quantiles
        Groups of the decisions by score, from which the positive ones are drawn.
    batch
        Contexts that the reader judges at once.
    baseline
        Whether another expert's label is scored on the same contexts.
    samples
        Draws of the bootstrap.
    seed
        Of what is drawn.
    answer_tokens
        Tokens of an answer at most.
    schema
        Whether answers have to follow a JSON schema from the first on, and not only where a free
        one could not be read.
    body
        Further fields of a request's body; null takes one out.
    concurrency
        Experts that are worked on at once.
    attempts
        How often a request is sent before the server counts as out of order.
    asked_again
        How often the reader is asked again whose answer cannot be read.
    timeout
        Seconds that an answer may take.
    max_requests, max_tokens
        What may be sent, and what it may come to; None for any number.
    """

    run: str
    endpoint: str | None
    model: str
    name: str = "labels"
    layers: tuple[int, ...] | None = None
    experts: tuple[int, ...] | None = None
    limit: int | None = None
    contexts: int = 20
    window: int = 32
    promoted: int = 10
    scored: int = 10
    quantiles: int = 5
    batch: int = 10
    baseline: bool = True
    samples: int = 1000
    seed: int = 0
    answer_tokens: int = 500
    schema: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 4
    attempts: int = 8
    asked_again: int = 2
    timeout: float = 120.0
    max_requests: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        check_addition_name(self.name)
        if not self.model or "\0" in self.model:
            raise UsageError(f"no name of a model: {self.model!r}", "--model NAME")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}: expected {least} or more, got {value!r}")
        taken = sorted(set(_OWN) & set(self.body))
        if taken:
            raise UsageError(f"body: {', '.join(taken)} cannot be set, moedb sets it")
        if self.schema and self.endpoint is None:
            raise UsageError(
                "schema: a model on this machine cannot be held to a JSON schema",
                "a server can be that takes response_format: --endpoint URL --model NAME --schema",
            )
        others = sorted(set(self.body) - {_OF_TEMPLATE})
        if self.endpoint is None and (
            others or not isinstance(self.body.get(_OF_TEMPLATE, {}), Mapping)
        ):
            raise UsageError(
                f"body: a model on this machine takes {_OF_TEMPLATE} alone, an object"
                + (f", not {', '.join(others)}" if others else ""),
                '--body \'{"chat_template_kwargs": {"enable_thinking": false}}\'',
            )

    @property
    def addition(self) -> Addition:
        """What the labels become, with what has to be the same for them to be the same."""
        content = {name: getattr(self, name) for name in _KEPT} | {"body": dict(self.body)}
        content |= {"promoted": self.promoted} if self.promoted else {}
        content |= {"schema": True} if self.schema else {}
        config = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return Addition(self.name, KIND, config)

    def request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """The body of a request."""
        fields = {"temperature": 0, "seed": self.seed, "max_tokens": self.answer_tokens}
        chosen = {**fields, **self.body}
        kept = {name: value for name, value in chosen.items() if value is not None}
        return {"model": self.model, "messages": messages, **kept}


_OF_TEMPLATE = "chat_template_kwargs"
"""The field of a body that is handed to a chat template."""

_KEPT = (
    *("model", "contexts", "window", "scored", "quantiles", "batch", "baseline"),
    *("samples", "seed", "answer_tokens", "asked_again"),
)
_LEAST: Mapping[str, float] = {
    "limit": 0,
    "contexts": 1,
    "window": 1,
    "promoted": 0,
    "scored": 0,
    "quantiles": 1,
    "batch": 1,
    "samples": 0,
    "seed": 0,
    "answer_tokens": 1,
    "concurrency": 1,
    "attempts": 1,
    "asked_again": 0,
    "timeout": 0.1,
    "max_requests": 1,
    "max_tokens": 1,
}
