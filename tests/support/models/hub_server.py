"""A small hub on this machine, and moedb run against it in a process of its own.

It speaks as much of the Hugging Face hub's protocol as ``huggingface_hub`` and ``datasets`` need to
find a repository, list it and read its files, so that both are tested as they are. Both read
``HF_ENDPOINT`` when they are imported; so moedb runs in another process, as a user would run it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """A repository of one commit.

    Attributes
    ----------
    files
        For each path its content.
    gated
        The status with which its files are withheld: 401, or 403.
    """

    files: Mapping[str, bytes]
    gated: int | None = None

    @property
    def commit(self) -> str:
        """Its commit: 40 hexadecimal digits, made of its content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + content)
        return digest.hexdigest()

    def entry(self, path: str) -> dict[str, Any] | None:
        """What a listing says of a file or folder."""
        if path in self.files:
            content = self.files[path]
            return {"type": "file", "path": path, "size": len(content), "oid": etag(content)}
        if any(each.startswith(f"{path}/") for each in self.files):
            return {"type": "directory", "path": path, "oid": etag(path.encode())}
        return None

    def tree(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """What a listing says of what is in a folder."""
        prefix = f"{folder}/" if folder else ""
        below = [path.removeprefix(prefix) for path in self.files if path.startswith(prefix)]
        paths: dict[str, None] = {}
        for parts in (path.split("/") for path in below):
            for depth in range(1, len(parts) + 1 if recursive else 2):
                paths[prefix + "/".join(parts[:depth])] = None
        return [entry for path in paths if (entry := self.entry(path)) is not None]


@dataclass
class Hub:
    """A hub that is running.

    Attributes
    ----------
    url
        Where.
    datasets, models
        For each id a repository.
    sent
        For each file that was read from, as ``OWNER/NAME/PATH``, the bytes of it that were sent.
    asked
        Every request: the method and the path.
    bytes_left
        How many bytes of files it sends before it breaks off and stops answering; None for all.
    """

    url: str
    datasets: dict[str, Repository] = field(default_factory=dict)
    models: dict[str, Repository] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bytes_left: int | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it has stopped answering."""
        return self.bytes_left == 0


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.is_dead:
            self.close_connection = True
            return
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.asked.append((self.command, path))
        if found := RESOLVE.fullmatch(path):
            is_dataset, name, revision, file = found.groups()
            repository = self._repository("datasets" if is_dataset else "models", name, revision)
            if repository is not None:
                self._file(repository, name, file)
        elif found := API.fullmatch(path):
            kind, name, verb, rest = found.groups()
            revision, _, folder = (rest or "main").partition("/")
            repository = self._repository(kind, name, revision)
            if repository is not None:
                self._listing(repository, name, verb, folder, parse_qs(url.query), body.decode())
        else:
            self._refuse(404, "NotFound", "there is no such page")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        repository: Repository | None = getattr(self.hub, kind).get(name)
        if repository is None:  # so the hub answers whoever has no token
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _listing(
        self,
        repository: Repository,
        name: str,
        verb: str | None,
        folder: str,
        query: Mapping[str, list[str]],
        body: str,
    ) -> None:
        if verb == "tree":
            self._send_json(
                repository.tree(folder, recursive=query.get("recursive", [""])[0].lower() == "true")
            )
        elif verb == "paths-info":
            entries = [repository.entry(path) for path in parse_qs(body).get("paths", [])]
            self._send_json([entry for entry in entries if entry is not None])
        else:
            siblings = [{"rfilename": path} for path in repository.files]
            gated = False if repository.gated is None else "manual"
            self._send_json(
                {"id": name, "sha": repository.commit, "siblings": siblings, "gated": gated}
            )

    def _file(self, repository: Repository, name: str, path: str) -> None:
        if repository.gated is not None:
            message = f"Access to {name} is restricted and you are not in the authorized list."
            self._refuse(repository.gated, "GatedRepo", message, repository)
            return
        if path not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found", repository)
            return
        content = repository.files[path]
        status, headers = 200, {"ETag": f'"{etag(content)}"', "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(content)}"
            content = content[start:end]
        headers["X-Repo-Commit"] = repository.commit
        key = f"{name}/{path}"
        if self.command == "GET":
            self.hub.sent[key] = self.hub.sent.get(key, 0) + len(content)
        self._send(status, content, headers)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(
        self, status: int, code: str, message: str, repository: Repository | None = None
    ) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        if repository is not None:
            headers["X-Repo-Commit"] = repository.commit
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "ETag" in headers and self.hub.bytes_left is not None:
            content = content[: self.hub.bytes_left]
            self.hub.bytes_left -= len(content)
            self.close_connection = self.hub.is_dead
        self.wfile.write(content)


def etag(content: bytes) -> str:
    """Git's name of a file's content."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Done:
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


RUN = """
import json, sys, time
{prelude}
from moedb.cli import run_cli
for arguments in json.loads(sys.argv[1]):
    code = run_cli(arguments)
    for stream in (sys.stdout, sys.stderr):
        print(chr(30), code, file=stream, flush=True)
"""


def run_moedb(
    hub: Hub,
    home: Path,
    *commands: Sequence[str],
    offline: bool = False,
    without_waiting: bool = False,
) -> list[Done]:
    """Run commands of moedb against a hub, one after the other in one process.

    Parameters
    ----------
    hub
        The hub.
    home
        Folder of the hub's cache.
    commands
        For each command its arguments.
    offline
        Whether the libraries are told to stay offline.
    without_waiting
        Whether nothing waits before it tries again.
    """
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "NO_PROXY": "127.0.0.1",
    }
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MOEDB_"))
    }
    prelude = "time.sleep = lambda seconds: None" if without_waiting else ""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(prelude=prelude), json.dumps([*map(list, commands)])],
        env={**kept, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs, errors = (
        re.findall(r"(.*?)\x1e (\d+)\n", each, re.DOTALL) for each in (done.stdout, done.stderr)
    )
    assert len(outputs) == len(commands), done.stderr
    return [
        Done(int(code), out, err) for (out, code), (err, _) in zip(outputs, errors, strict=True)
    ]
