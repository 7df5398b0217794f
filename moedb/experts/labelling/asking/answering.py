"""Who answers: a server, or a model on this machine; and what an answer is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from moedb.errors import MoedbError

MOST_CHARACTERS = 32_768
"""What is taken of an answer."""

FORM = "response_format"
"""The field of a request that says of what form the answer is to be."""

FORM_NAME = "moedb_answer"
"""What moedb calls the forms that it asks for, so that a user's own are told from them."""


class EndpointError(MoedbError):
    """The server cannot be asked: it does not answer, or refuses whoever asks."""


class RefusedError(MoedbError):
    """The server refuses this one request."""


class StoppedError(MoedbError):
    """There is to be no further request."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes
    ----------
    text
        The answer; where it is none of the protocol, the beginning of what came.
    model
        The model that answered, as the server says.
    prompt_tokens, completion_tokens
        As the server counts them; None where it does not.
    seconds
        How long the last attempt took.
    attempts
        How often the request was sent.
    finish
        Why the answer ends, as the server says.
    is_protocol
        Whether it is an answer of the protocol.
    """

    text: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    attempts: int
    finish: str | None
    is_protocol: bool = True


class Answering(Protocol):
    """Who answers requests; several threads may ask.

    Attributes
    ----------
    url
        Where requests go, as the tables have it.
    n_understood
        Answers of the protocol that have come.
    """

    url: str
    n_understood: int

    def ask(self, body: Mapping[str, Any], on_attempt: Callable[[], None] = lambda: None) -> Reply:
        """Answer a request: ``messages``, ``max_tokens`` and what else its body has.

        Parameters
        ----------
        body
            The request.
        on_attempt
            Called before each attempt; may raise.

        Raises
        ------
        EndpointError
            If nothing can be asked.
        RefusedError
            If this request is refused.
        StoppedError
            If no request is to be answered any more.
        """

    def stop(self) -> None:
        """Have no request be answered from now on."""

    def close(self) -> None:
        """Give back what it holds."""


def form_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says that its answer is to be, in OpenAI's words."""
    return {"type": "json_schema", "json_schema": {"name": FORM_NAME, "schema": dict(schema)}}


def storable(text: str) -> str:
    """A text that can be stored: no lone surrogates, no zeros."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
