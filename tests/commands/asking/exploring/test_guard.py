"""What the server refuses, asked as a browser, and whatever else reaches its port, would."""

import json
import socket

import httpx
import pytest

from moedb.commands.asking.exploring.http.guard import LARGEST_BODY, LONGEST_ADDRESS
from tests.support.servers.explorer import Explorer
from tests.support.stores.made.hostile import RUN

SQL = {"statement": "select 1", "snapshot": ""}


def status(answer: str) -> int:
    return int(answer.split(" ", 2)[1])


def request(server: Explorer, path: str = "/", *lines: str, method: str = "GET") -> str:
    head = [f"{method} {path} HTTP/1.1", *lines, "Connection: close"]
    return server.sent("\r\n".join(head) + "\r\n\r\n")


def test_the_printed_address_opens_the_page(server: Explorer) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        first = client.get(server.address)
        assert first.status_code == 303 and first.headers["location"] == "/"
        told = first.headers["set-cookie"]
        assert "HttpOnly" in told and "SameSite=Strict" in told and "Path=/" in told
        page = client.get(f"{server.root}/")
        assert page.status_code == 200 and RUN in page.text
        token = server.address.partition("token=")[2]
        assert len(token) >= 43 and token not in page.text
    kept = httpx.get(f"{server.address}&run={RUN}", trust_env=False)
    assert kept.headers["location"] == f"/?run={RUN}"


@pytest.mark.parametrize("path", ["/", "/view/load?run=x", "/assets/page.js", "/absent", "/news"])
def test_without_the_token_nothing_is_told(server: Explorer, path: str) -> None:
    name = f"moedb-explore-{server.port}"
    for headers in ({}, {"Cookie": f"{name}="}, {"Cookie": f"{name}=guess; other=1"}):
        found = httpx.get(server.root + path, headers=headers, trust_env=False)
        assert found.status_code == 403
        assert found.json() == {"error": {"message": "refused", "hint": None}}
        assert "set-cookie" not in found.headers
    wrong = httpx.get(f"{server.root}/", params={"token": "é" * 9}, trust_env=False)
    assert wrong.status_code == 403 and "set-cookie" not in wrong.headers


def test_the_token_opens_the_first_page_alone(server: Explorer, client: httpx.Client) -> None:
    token = server.address.partition("token=")[2]
    for path in ("/news", "/view/about"):
        assert client.get(path, params={"token": token}).status_code == 403
    assert client.post(f"/sql?token={token}", json=SQL).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.2:{port}"],
)
def test_another_name_of_this_machine_is_refused(server: Explorer, host: str) -> None:
    cookie = f"Cookie: {server.cookie()}"
    own = request(server, "/news", f"Host: 127.0.0.1:{server.port}", cookie)
    assert status(own) == 200
    named = f"Host: {host.format(port=server.port)}"
    assert status(request(server, "/news", named, cookie)) == 403
    twice = request(server, "/news", f"Host: 127.0.0.1:{server.port}", named, cookie)
    assert status(twice) in (400, 403)
    old = server.sent(f"GET /news HTTP/1.0\r\n{cookie}\r\n\r\n")
    assert status(old) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_elsewhere_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.get("/news", headers=headers).status_code == 403
    assert client.post("/sql", json=SQL, headers=headers).status_code == 403
    assert client.get(f"/view/about?run={RUN}", headers=headers).status_code == 403


def test_its_own_pages_are_not(server: Explorer, client: httpx.Client) -> None:
    headers = {"Origin": server.root, "Sec-Fetch-Site": "same-origin"}
    assert client.get("/news", headers=headers).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "MOEDB"])
def test_pages_are_got_and_sql_is_posted(client: httpx.Client, method: str) -> None:
    for path in ("/", "/view/about", "/news", "/absent"):
        found = client.request(method, path)
        assert found.status_code == 405 and found.headers["allow"] == "GET"
    assert client.get("/sql").status_code == 405
    assert client.get("/complete").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_sql_comes_as_json(client: httpx.Client, kind: str) -> None:
    found = client.post("/sql", content=json.dumps(SQL), headers={"content-type": kind})
    assert found.status_code == 415


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/assets/../../../../etc/passwd",
        "/assets/..%2f..%2fpage.html",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..\\page.html",
        "/assets/page.js%00",
        "/assets/",
        "//assets/page.js",
        "/view/../news",
        "/view/%2e%2e%2fnews",
        "/.git/config",
        "/etc/passwd",
    ],
)
def test_no_file_is_reached_by_its_path(server: Explorer, path: str) -> None:
    lines = (f"Host: 127.0.0.1:{server.port}", f"Cookie: {server.cookie()}")
    found = request(server, path, *lines)
    assert status(found) in (400, 404) and "root:" not in found
    assert '{"error"' in found


def test_what_is_too_long_is_refused(server: Explorer, client: httpx.Client) -> None:
    assert client.get(f"/view/{'a' * LONGEST_ADDRESS}").status_code == 414
    assert client.get("/view/about", params={"run": "é" * LONGEST_ADDRESS}).status_code == 414
    large = json.dumps({**SQL, "statement": "-" * LARGEST_BODY})
    headers = {"content-type": "application/json"}
    assert client.post("/sql", content=large, headers=headers).status_code == 413
    long = {**SQL, "statement": f"select '{'a' * 20_000}'"}
    assert client.post("/sql", json=long).status_code == 400
    # in chunks, which do not say how many there are
    head = (
        f"POST /sql HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie()}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    chunks = f"{10_000:x}\r\n{' ' * 10_000}\r\n" * (LARGEST_BODY // 10_000 + 1) + "0\r\n\r\n"
    assert status(server.sent(head + chunks)) == 413
    assert status(request(server, "/", "X: " + "a" * 100_000)) in (400, 431)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{", '{"statement": 1}', '{"statement": "select 1"}', "[" * 5000, '"\\ud800"'],
)
def test_a_body_that_is_no_statement_is_refused(client: httpx.Client, body: str) -> None:
    found = client.post("/sql", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400 and found.json()["error"]["message"]


def test_every_answer_has_the_headers(server: Explorer, client: httpx.Client) -> None:
    bare = httpx.Client(base_url=server.root, trust_env=False)
    for found in (
        client.get("/"),
        client.get("/assets/page.js"),
        client.get(f"/view/about?run={RUN}"),
        client.get("/absent"),
        client.post("/sql", json=SQL),
        client.put("/"),
        bare.get("/"),
        bare.get(server.address),
    ):
        policy = dict(
            each.strip().split(" ", 1)
            for each in found.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert policy["connect-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["cache-control"] == "no-store"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in found.headers
        assert not [name for name in found.headers if name.startswith("access-control")]


def test_it_listens_on_this_machine_alone(server: Explorer) -> None:
    others = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)}
    for address in others - {"127.0.0.1", "::1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, server.port), timeout=2).close()
