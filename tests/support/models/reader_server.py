"""A server of chat completions on this machine, that reads contexts of :mod:`routed_words`.

It follows the protocol and may be told to misbehave: to close connections, to answer nonsense, to
ask for patience, to hold what it is asked. It counts what it has answered.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.stores.made.routed_words import expert_of

NONSENSE = (
    "I would rather not.",
    '{"label": 7}',
    '{"fits": [true]}',
    "",
    '{"label": ""} {"fits": "all"}',
    "[" * 500,
)


@dataclass
class ReaderServer:
    """What the server does, and what it has seen.

    Attributes
    ----------
    manner
        ``oracle``: knows how the run was routed; ``yes``: says yes to everything; ``random``: says
        whatever a hash says; ``any``: that too, of any texts, with labels that are all the same.
    drops, nonsense, limits
        One request in so many is dropped, answered with nonsense, told to wait; 0 for none.
    status
        What is answered to every request, if it is not 200.
    forms
        The types of ``response_format`` that it takes; None for a server that never looked at it.
    refusal
        What is answered to another type.
    only_formed
        Whether it makes sense only where a form is asked for.
    usage
        Whether tokens are counted in answers.
    delay
        Seconds that an answer takes.
    hold_after
        Requests are held, and not answered, after so many answers.
    answered
        For the hash of each body how often it was answered.
    keys
        What came as authorization.
    n_requests, n_held
        All that came; what is held.
    """

    manner: str = "oracle"
    drops: int = 0
    nonsense: int = 0
    limits: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: str = "no"
    forms: tuple[str, ...] | None = None
    refusal: int = 400
    only_formed: bool = False
    usage: bool = True
    delay: float = 0.0
    hold_after: int | None = None
    answered: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: set[str | None] = field(default_factory=set)
    n_requests: int = 0
    n_held: int = 0
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    release: threading.Event = field(default_factory=threading.Event)

    def said(self, body: dict[str, Any]) -> str:
        """What a sound answer to a request is."""
        asked = body["messages"][1]["content"]
        texts = [json.loads(line) for line in re.findall(r"^\d+\. (\".*\")$", asked, re.MULTILINE)]
        if '{"label"' in asked and self.manner == "any":
            return '{"label": "the words of expert 1"}'
        if '{"label"' in asked:
            return f'```json\n{{"label": "the words of expert {_most(texts)}"}}\n```'
        expert = int(re.search(r"of expert (\d+)", asked)[1])  # type: ignore[index]
        return json.dumps({"fits": [self._fits(text, expert, asked) for text in texts]})

    def _fits(self, text: str, expert: int, asked: str) -> bool:
        if self.manner == "yes":
            return True
        if self.manner in ("random", "any"):
            return hashlib.sha256(f"{expert}{text}{len(asked)}".encode()).digest()[0] % 2 == 0
        words = [word for word, is_marked in _words(text)]
        marks = [is_marked for _, is_marked in _words(text)]
        # what comes before the first word is not to be seen
        routed = [
            word == "Start" if before is None else expert_of(word, before) == expert
            for word, before in zip(words, [None, *words[:-1]], strict=True)
        ]
        if words[0] == "Start":
            routed[0] = expert == 10
        else:
            routed[0] = False
        if any(marks):
            return routed[marks.index(True)]
        return any(routed)


def _words(text: str) -> list[tuple[str, bool]]:
    return [(word.strip("« »"), "«" in word) for word in re.findall(r"« ?\w+»|\w+", text)]


def _most(texts: list[str]) -> int:
    found: Counter[int] = Counter()
    for text in texts:
        words = _words(text)
        for place, (word, is_marked) in enumerate(words):
            if is_marked and (place or word == "Start"):
                found[expert_of(word, words[place - 1][0] if place else None)] += 1
    ((expert, _),) = found.most_common(1)
    return expert


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece
    reader: ReaderServer

    def log_message(self, *given: Any) -> None:
        pass

    def do_POST(self) -> None:
        reader = self.reader
        content = self.rfile.read(int(self.headers["content-length"]))
        with reader.lock:
            reader.n_requests += 1
            number = reader.n_requests
            reader.keys.add(self.headers.get("authorization"))
            is_held = reader.hold_after is not None and (
                reader.answered.total() >= reader.hold_after
            )
            reader.n_held += is_held
            reader.at_once += 1
            reader.most_at_once = max(reader.most_at_once, reader.at_once)
        try:
            time.sleep(reader.delay)
            if is_held:
                reader.release.wait()
                self.close_connection = True
                return
            if reader.drops and number % reader.drops == 3:
                self.close_connection = True
                return
            if reader.limits and number % reader.limits == 5:
                self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})
                return
            if reader.status != 200:
                self._send(reader.status, {"error": {"message": reader.error}}, reader.headers)
                return
            self._answer(content, number)
        finally:
            with reader.lock:
                reader.at_once -= 1

    def _answer(self, content: bytes, number: int) -> None:
        reader, body = self.reader, json.loads(content)
        assert self.path == "/v1/chat/completions" and body["model"]
        form = body.get("response_format")
        if form is not None and reader.forms is not None and form["type"] not in reader.forms:
            self._send(reader.refusal, {"error": {"message": "no such response_format"}}, {})
            return
        if reader.only_formed and form is None:
            said = "1. « of the\n2. I would rather go on with the list"
        elif reader.nonsense and number % reader.nonsense == 7:
            said = NONSENSE[number // reader.nonsense % len(NONSENSE)]
        else:
            said = reader.said(body)
        answer: dict[str, Any] = {
            "model": "reader-1",
            "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
        }
        if reader.usage:
            answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
        sha256 = hashlib.sha256(content).hexdigest()
        with reader.lock:
            reader.answered[sha256] += 1
            reader.bodies[sha256] = body
        self._send(200, answer, {})

    def _send(self, status: int, content: dict[str, Any], headers: dict[str, str]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def reader_server(**manner: Any) -> Iterator[ReaderServer]:
    """Run a server while the block does."""
    reader = ReaderServer(**manner)
    handler = type("Handler", (_Handler,), {"reader": reader})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        reader.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield reader
        finally:
            reader.release.set()
            server.shutdown()
