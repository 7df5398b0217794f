"""A server that speaks OpenAI's protocol of chat completions: asked until it answers."""

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from moedb.errors import UsageError, first_line
from moedb.experts.labelling.asking.answering import (
    FORM,
    FORM_NAME,
    MOST_CHARACTERS,
    EndpointError,
    RefusedError,
    Reply,
    StoppedError,
    storable,
)

logger = logging.getLogger(__name__)

KEYS = ("MOEDB_API_KEY", "OPENAI_API_KEY")
"""The variables that may hold the key, the first that is there."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a request is sent again: doubled each time, and a random share of that."""

LONGEST_ASKED = 600.0
"""Seconds that a server may ask to wait."""

MOST_BYTES = 8 << 20
"""What is taken of an answer."""

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_NO_SUCH_FORM = frozenset({400, 404, 415, 422, 500, 501})
"""What servers answer that do not know the form of an answer; some say that they failed."""

_STOP = frozenset({401, 402, 403, 404, 405})
_LOCAL = ("localhost", "127.0.0.1", "::1")


def completions_url(endpoint: str) -> str:
    """The address that requests are sent to.

    Raises
    ------
    UsageError
        If it is no address of a server, or holds a key.

    Examples
    --------
    >>> completions_url("http://127.0.0.1:8000")
    'http://127.0.0.1:8000/v1/chat/completions'
    >>> completions_url("https://host/api/v1/")
    'https://host/api/v1/chat/completions'
    """
    example = "--endpoint http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError("the endpoint is no address of a server", example) from error
    if parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            "the endpoint has more than a host and a path: a key would be stored with it",
            f"put the key into {KEYS[0]}, and name the host alone: {example}",
        )
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", endpoint):
        raise UsageError(f"the endpoint is no address of a server: {endpoint!r}", example)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def find_key(environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """The variable that holds a key, and the key; None where there is none.

    Raises
    ------
    UsageError
        If what it holds can be no key; it is not shown.
    """
    for name in KEYS:
        key = environment.get(name, "").strip()
        if key:
            if not re.fullmatch(r"[!-~]{1,8192}", key):
                raise UsageError(f"{name} holds no key: expected visible ASCII without blanks")
            return name, key
    return None


class Endpoint:
    """Sends requests to one address; several threads may ask.

    Parameters
    ----------
    url
        The address, see :func:`completions_url`.
    key
        What is sent as the bearer's token; None for nothing.
    timeout
        Seconds that an answer may take.
    attempts
        How often a request is sent at most.

    Attributes
    ----------
    n_understood
        Answers of the protocol that have come.
    """

    def __init__(self, url: str, key: str | None, timeout: float, attempts: int) -> None:
        httpx = _httpx()
        self.url = url
        self.n_understood = 0
        self._key, self._timeout, self._attempts = key, timeout, attempts
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        host = urlsplit(url).hostname
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 30.0)),
            follow_redirects=False,
            trust_env=host not in _LOCAL,
            limits=httpx.Limits(max_connections=None),
        )
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._form = 0

    def stop(self) -> None:
        """Have no request be sent from now on."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, body: Mapping[str, Any], on_attempt: Any = lambda: None) -> Reply:
        """Send a request until it is answered.

        Parameters
        ----------
        body
            The request.
        on_attempt
            Called before it is sent, each time; may raise.

        Raises
        ------
        EndpointError
            If the server cannot be asked.
        RefusedError
            If it refuses this request.
        StoppedError
            If no request is to be sent any more.
        """
        httpx = _httpx()
        attempt = n_failed = 0
        forms = _forms_of(body)
        form = min(self._form, len(forms) - 1)
        while n_failed < self._attempts:
            attempt, n_failed = attempt + 1, n_failed + 1
            self._wait_for_turn()
            on_attempt()
            began = time.monotonic()
            asked_wait: float | None = None
            try:
                status, headers, content = self._send(forms[form])
            except httpx.HTTPError as error:
                wrong = f"{type(error).__name__}: {first_line(error)}"
            else:
                if status == 200:
                    self._form = max(self._form, form)
                    return self._reply(content, time.monotonic() - began, attempt)
                wrong = f"HTTP {status}{self._said(content)}"
                if form < len(forms) - 1 and status in _NO_SUCH_FORM:
                    logger.info("%s; asked for in another form", self._hidden(wrong))
                    form, n_failed = form + 1, n_failed - 1
                    continue
                self._expect_further(status, headers, content, wrong)
                asked_wait = _retry_after(headers)
            if n_failed < self._attempts:
                self._wait(n_failed, asked_wait, wrong)
        raise EndpointError(
            f"{self.url} did not answer a request in {self._attempts} attempts; the last: "
            f"{self._hidden(wrong)}",
            "what was answered is kept; the same command goes on from there",
        )

    def _send(self, body: Mapping[str, Any]) -> tuple[int, Any, bytes]:
        httpx = _httpx()
        content, began = b"", time.monotonic()
        with self._client.stream("POST", self.url, json=dict(body)) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    break
                if time.monotonic() - began > self._timeout:
                    raise httpx.ReadTimeout(f"no whole answer in {self._timeout:g} s")
            return response.status_code, response.headers, content

    def _expect_further(self, status: int, headers: Any, content: bytes, wrong: str) -> None:
        """Raise where sending the same again is of no use."""
        shown = self._hidden(wrong)
        if 300 <= status < 400:
            raise EndpointError(
                f"{self.url} sends on to another address, and nothing is sent there unasked: "
                f"{self._hidden(str(headers.get('location', '')))[:200]!r}",
                "name that one, if you know it: --endpoint URL",
            )
        if status in _STOP:
            raise EndpointError(
                f"{self.url} refuses: {shown}",
                f"is the address right, the model's name, and the key in {KEYS[0]}?",
            )
        if status == 429 and b"insufficient_quota" in content:
            raise EndpointError(f"{self.url} refuses: {shown}")
        if status not in _AGAIN:
            if not self.n_understood:
                raise EndpointError(
                    f"{self.url} refuses the first request: {shown}",
                    "fields of requests can be changed: --body '{\"temperature\": null}'",
                )
            raise RefusedError(shown)

    def _reply(self, content: bytes, seconds: float, attempts: int) -> Reply:
        try:
            found = json.loads(content)
            choice = found["choices"][0]
            text = choice["message"].get("content")
            if not isinstance(text, str | None):
                raise TypeError("content is no text")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            shown = self._clean(content[: 4 * MOST_CHARACTERS].decode(errors="replace"))
            return Reply(shown, None, None, None, seconds, attempts, None, is_protocol=False)
        with self._lock:
            self.n_understood += 1
        usage = found.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Reply(
            self._clean(text or ""),
            self._short(found.get("model")),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            seconds,
            attempts,
            self._short(choice.get("finish_reason")),
        )

    def _said(self, content: bytes) -> str:
        """What a server says is wrong, for an error."""
        try:
            found = json.loads(content)
            error = found.get("error", found)
            said = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, AttributeError, RecursionError):
            said = content.decode(errors="replace")
        text = " ".join(self._clean(str(said)).split())[:300]
        return f": {text}" if text else ""

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _clean(self, text: str) -> str:
        """A text that can be stored, without the key."""
        return self._hidden(storable(text))[:MOST_CHARACTERS]

    def _short(self, value: object) -> str | None:
        return self._clean(value)[:200] if isinstance(value, str) else None

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self._stopped.wait(left):
                break
        if self._stopped.is_set():
            raise StoppedError("no further request is sent")

    def _wait(self, attempt: int, asked: float | None, wrong: str) -> None:
        logger.info("%s; attempt %s of %s", self._hidden(wrong), attempt, self._attempts)
        if asked is not None:
            if asked > LONGEST_ASKED:
                raise EndpointError(
                    f"{self.url} asks to wait {asked:,.0f} s",
                    "what was answered is kept; the same command goes on from there",
                )
            # whoever is asked to wait, waits with all that it asks
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + asked)
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
        self._stopped.wait((0.0 if asked is not None else longest / 10) + random.random() * longest)


def _forms_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A request in the ways of asking for its form: OpenAI's, that of older servers, and none."""
    asked = body.get(FORM)
    if not isinstance(asked, dict) or asked.get("json_schema", {}).get("name") != FORM_NAME:
        return [body]
    free = {name: value for name, value in body.items() if name != FORM}
    older = {"type": "json_object", "schema": asked["json_schema"]["schema"]}
    return [body, {**free, FORM: older}, free]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait; None where it does not."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise UsageError(
            "asking a server takes httpx, which is not installed", "pip install 'moedb[labels]'"
        ) from error
    return httpx
