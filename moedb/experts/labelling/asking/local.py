"""A chat model on this machine, asked as a server is."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from moedb.errors import UsageError
from moedb.experts.labelling.asking.answering import (
    MOST_CHARACTERS,
    RefusedError,
    Reply,
    StoppedError,
    storable,
)

LOCAL = "local"
"""What the tables have in place of an address."""


class Said(Protocol):
    """What a model said.

    Attributes
    ----------
    text
        The answer.
    prompt_tokens, completion_tokens
        Its length, and that of what it answers.
    finish
        ``stop`` where the model ended it, ``length`` where it was cut off.
    """

    @property
    def text(self) -> str: ...  # noqa: D102

    @property
    def prompt_tokens(self) -> int: ...  # noqa: D102

    @property
    def completion_tokens(self) -> int: ...  # noqa: D102

    @property
    def finish(self) -> str: ...  # noqa: D102


class Chat(Protocol):
    """A chat model that is loaded."""

    def answer(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        template: Mapping[str, Any],
        is_stopped: Callable[[], bool],
    ) -> Said | None:
        """Answer messages greedily; None where it was stopped.

        Raises
        ------
        UsageError
            If it cannot answer these messages, whatever else it can.
        """


class LocalReader:
    """Has a model on this machine answer, one request at a time.

    Parameters
    ----------
    model
        What the tables call it.
    chat
        The model.
    """

    def __init__(self, model: str, chat: Chat) -> None:
        self.url, self.n_understood = LOCAL, 0
        self._model, self._chat = model, chat
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def ask(self, body: Mapping[str, Any], on_attempt: Callable[[], None] = lambda: None) -> Reply:
        """Answer a request; as :meth:`~.answering.Answering.ask`."""
        with self._lock:
            if self._stopped.is_set():
                raise StoppedError("no further request is answered")
            on_attempt()
            began = time.monotonic()
            try:
                said = self._chat.answer(
                    body["messages"],
                    int(body["max_tokens"]),
                    body.get("chat_template_kwargs", {}),
                    self._stopped.is_set,
                )
            except UsageError as error:
                raise RefusedError(error.message, error.hint) from error
            if said is None:
                raise StoppedError("no further request is answered")
            self.n_understood += 1
            return Reply(
                storable(said.text)[:MOST_CHARACTERS],
                self._model,
                said.prompt_tokens,
                said.completion_tokens,
                time.monotonic() - began,
                1,
                said.finish,
            )

    def stop(self) -> None:
        """Have what is being answered end, and nothing be answered from now on."""
        self._stopped.set()

    def close(self) -> None:
        """Do nothing: whoever loaded the model keeps it."""
