"""Asking a reader: each request once, as often as it takes, within what may be spent."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from moedb.experts.labelling.asking.answering import (
    FORM,
    Answering,
    RefusedError,
    Reply,
    StoppedError,
    form_of,
)
from moedb.experts.labelling.asking.journal import Journal
from moedb.experts.labelling.prompts import Messages, NonsenseError, asked_again
from moedb.experts.labelling.settings import LabelSettings
from moedb.store.files import sha256_of_json

T = TypeVar("T")

CHARACTERS_PER_TOKEN = 3.5
"""Of a prompt, roughly, where a server does not say."""


@dataclass(frozen=True)
class Asked:
    """A request, and what came of it.

    Attributes
    ----------
    purpose
        What was asked for.
    prompt
        The messages, as JSON.
    reply
        The answer; None where the server refused.
    status
        ``ok``, ``nonsense`` or ``refused``.
    reason
        Why it is not ok.
    """

    purpose: str
    prompt: str
    reply: Reply | None
    status: str
    reason: str | None = None


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a reader said in the end.

    Attributes
    ----------
    value
        What was asked for; None where it could not be had.
    asked
        Every request that it took.
    """

    value: T | None
    asked: tuple[Asked, ...]

    @property
    def status(self) -> str:
        """That of the last request."""
        return self.asked[-1].status

    @property
    def reason(self) -> str | None:
        """Why there is no value."""
        return self.asked[-1].reason


@dataclass(eq=False)
class Share:
    """What is set aside for an expert that has begun."""

    requests: int
    tokens: int


@dataclass
class Budget:
    """What may be sent; several threads take of it.

    Attributes
    ----------
    max_requests, max_tokens
        None for any number.
    n_requests, n_tokens
        What was sent, every attempt counted, and what it came to.
    is_spent
        Whether something was not sent for want of it.
    """

    max_requests: int | None
    max_tokens: int | None
    n_requests: int = 0
    n_tokens: int = 0
    is_spent: bool = False
    _shares: list[Share] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, requests: int, tokens: int) -> Share | None:
        """Set aside what an expert will take; None where there is not so much."""
        with self._lock:
            taken = self.n_requests + sum(share.requests for share in self._shares) + requests
            spent = self.n_tokens + sum(share.tokens for share in self._shares) + tokens
            if taken > (self.max_requests or taken) or spent > (self.max_tokens or spent):
                self.is_spent = True
                return None
            share = Share(requests, tokens)
            self._shares.append(share)
            return share

    def end(self, share: Share) -> None:
        """Give back what an expert did not take."""
        with self._lock:
            self._shares.remove(share)

    def take(self, share: Share) -> None:
        """Take one request.

        Raises
        ------
        StoppedError
            If there is none left.
        """
        with self._lock:
            if self.n_requests + 1 > (self.max_requests or self.n_requests + 1) or (
                self.max_tokens is not None and self.n_tokens >= self.max_tokens
            ):
                self.is_spent = True
                raise StoppedError("what may be sent is spent")
            self.n_requests += 1
            share.requests = max(0, share.requests - 1)

    def spend(self, share: Share, tokens: int) -> None:
        """Count what a request came to."""
        with self._lock:
            self.n_tokens += tokens
            share.tokens = max(0, share.tokens - tokens)


class Reader:
    """Asks one model, and never the same twice.

    Parameters
    ----------
    settings
        What requests are made with.
    answering
        Who answers them.
    journal
        Holds what was answered.
    budget
        What may be sent.
    """

    def __init__(
        self, settings: LabelSettings, answering: Answering, journal: Journal, budget: Budget
    ) -> None:
        self._settings, self._answering = settings, answering
        self._journal, self._budget = journal, budget
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def ask(
        self,
        purpose: str,
        messages: Messages,
        read: Callable[[str], T],
        share: Share,
        schema: Mapping[str, Any],
    ) -> Answer[T]:
        """Ask until an answer can be read, a few times.

        The first answer is free where the settings say nothing else: to have a form forced upon it
        may keep a model from thinking.

        Parameters
        ----------
        purpose
            What is asked for.
        messages
            The question.
        read
            Reads an answer; raises NonsenseError.
        share
            What is set aside for it.
        schema
            The JSON schema of an answer, asked for where a free one could not be read.

        Raises
        ------
        EndpointError
            If the server cannot be asked.
        StoppedError
            If no request is to be sent any more.
        """
        asked: list[Asked] = []
        for number in range(self._settings.asked_again + 1):
            prompt = json.dumps(messages, ensure_ascii=False)
            try:
                is_free = number == 0 and not self._settings.schema
                reply = self._reply(messages, share, None if is_free else schema)
            except RefusedError as error:
                asked.append(Asked(purpose, prompt, None, "refused", error.message))
                return Answer(None, tuple(asked))
            try:
                value = read(reply.text)
            except NonsenseError as error:
                reason = _reason(str(error), reply)
                asked.append(Asked(purpose, prompt, reply, "nonsense", reason))
                messages = asked_again(messages, reply.text, reason)
                continue
            asked.append(Asked(purpose, prompt, reply, "ok"))
            return Answer(value, tuple(asked))
        return Answer(None, tuple(asked))

    def _reply(self, messages: Messages, share: Share, schema: Mapping[str, Any] | None) -> Reply:
        body = self._settings.request(messages)
        if schema is not None:
            body.setdefault(FORM, form_of(schema))
        sha256 = sha256_of_json(body)
        with self._lock:
            own = self._asking[sha256]
        with own:  # another expert's baseline may ask the same at this moment
            known = self._journal.get(sha256)
            if known is not None:
                return known
            reply = self._answering.ask(body, lambda: self._budget.take(share))
            # what a wrong address says is no answer, and would stand in the way of the right one
            if reply.is_protocol or self._answering.n_understood:
                self._journal.keep(sha256, reply)
            self._budget.spend(share, _tokens(messages, reply))
            return reply


def _tokens(messages: Messages, reply: Reply) -> int:
    length = sum(len(message["content"]) for message in messages)
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    return (rough_tokens(length) if prompt is None else prompt) + (
        rough_tokens(len(reply.text)) if completion is None else completion
    )


def rough_tokens(n_characters: float) -> int:
    """How many tokens a text of so many characters may have."""
    return round(n_characters / CHARACTERS_PER_TOKEN)


def _reason(wrong: str, reply: Reply) -> str:
    if not reply.is_protocol:
        return f"no answer of the protocol: {reply.text[:60]!r}"
    if reply.finish == "length":
        return f"{wrong}, which was cut off at its most tokens"
    return f"{wrong}, ended by {reply.finish}" if reply.finish not in (None, "stop") else wrong
