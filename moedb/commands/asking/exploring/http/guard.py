"""Who may ask: the browser that was given the address, from pages of this server alone.

Everything else on the machine, and every page that its browser has open, can reach a port of it. So
a request has to name this machine as its host (a name of elsewhere can be made to lead here), must
not come from a page of elsewhere, and needs the token.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from moedb.commands.asking.exploring.page import POLICY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

TOKEN = "token"  # noqa: S105  the name of a parameter
LONGEST_ADDRESS = 4096
LARGEST_BODY = 64 * 1024

_HEADERS = {
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HOSTS = ("127.0.0.1", "localhost")
_POSTED = ("/sql", "/complete")
"""Where SQL is sent to."""


class Refusal(Exception):  # noqa: N818  it is no error that something is refused
    """A request that is not answered.

    Parameters
    ----------
    status, message
        What is told.
    headers
        Headers of the answer, by name.
    """

    def __init__(
        self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class _Redirect(Exception):  # noqa: N818
    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class Guard:
    """Lets through what may be asked, and puts the headers on every answer.

    Parameters
    ----------
    app
        What answers.
    token
        The secret.
    port
        The port of the server, after which its cookie is named: cookies have none of their own.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._cookie = f"moedb-explore-{port}"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].decode() not in _HEADERS]
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, _limited(receive), with_headers)
        except _Redirect as found:
            await _answer(with_headers, 303, b"", self._where(found.place))
        except Refusal as refusal:
            await _answer(with_headers, refusal.status, refusal.message, refusal.headers)

    def _where(self, place: str) -> tuple[tuple[str, str], ...]:
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        return (("location", place), ("set-cookie", cookie))

    def _check(self, scope: Message) -> None:
        """Refuse what may not be asked."""
        headers = _headers(scope)
        self._check_origin(headers)
        query = scope["query_string"]
        if len(scope["raw_path"]) + len(query) > LONGEST_ADDRESS:
            raise Refusal(414, "the address is too long")
        self._check_token(scope, headers, query.decode("latin-1"))
        method, path = scope["method"], scope["path"]
        allowed = "POST" if path in _POSTED else "GET"
        if method != allowed:
            message = f"{method} is not answered here"
            raise Refusal(405, message, (("allow", allowed),))
        if method == "POST":
            _check_body(headers)

    def _check_origin(self, headers: Mapping[str, list[str]]) -> None:
        hosts = headers.get("host", [])
        host, _, port = hosts[0].rpartition(":") if len(hosts) == 1 else ("", "", "")
        if host not in _HOSTS or not port.isdigit():
            raise Refusal(403, "refused")
        if any(origin != f"http://{hosts[0]}" for origin in headers.get("origin", [])):
            raise Refusal(403, "refused")
        if any(each not in ("same-origin", "none") for each in headers.get("sec-fetch-site", [])):
            raise Refusal(403, "refused")

    def _check_token(self, scope: Message, headers: Mapping[str, list[str]], query: str) -> None:
        pairs = parse_qsl(query, keep_blank_values=True)
        given = [value for name, value in pairs if name == TOKEN]
        if given:
            if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(given[-1]):
                others = urlencode([pair for pair in pairs if pair[0] != TOKEN])
                raise _Redirect(f"/?{others}" if others else "/")
            raise Refusal(403, "refused")
        cookies = [pair.strip() for line in headers.get("cookie", []) for pair in line.split(";")]
        own = [pair.partition("=")[2] for pair in cookies if pair.startswith(f"{self._cookie}=")]
        if not any(self._is_token(each) for each in own):
            raise Refusal(403, "refused")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _check_body(headers: Mapping[str, list[str]]) -> None:
    kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the body has to be application/json")
    length = headers.get("content-length", ["0"])[0]
    if not length.isdigit() or int(length) > LARGEST_BODY:
        raise Refusal(413, f"the body may have {LARGEST_BODY} bytes")


def _limited(receive: Receive) -> Receive:
    """The same, up to the largest body: one that is sent in chunks does not say how large it is."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > LARGEST_BODY:
            raise Refusal(413, f"the body may have {LARGEST_BODY} bytes")
        return message

    return limited


def _headers(scope: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


async def _answer(
    send: Send, status: int, message: str | bytes, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    body = message if isinstance(message, bytes) else error_body(message)
    pairs = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    told = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str, hint: str | None = None) -> bytes:
    """What is sent in the place of an answer."""
    return json.dumps({"error": {"message": message, "hint": hint}}).encode()
