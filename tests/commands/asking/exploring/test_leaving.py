"""What nobody waits for any more is stopped, in Python as in SQL, and frees its place."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.servers.explorer import Explorer, explorer

pytestmark = pytest.mark.model

LONG = ("--samples", "20000")
"""Intervals of pairs of experts, or of classes, from so many draws take minutes on two cores."""

SOON = 60.0


@pytest.fixture(scope="module")
def server(mini_store: Path) -> Iterator[Explorer]:
    with explorer(mini_store, *LONG) as running:
        yield running


def run_of(client: httpx.Client) -> str:
    found = re.search(r'"run":"([^"]+)"', client.get("/", timeout=SOON).text)
    assert found is not None
    return found[1]


def asked_for(client: httpx.Client, name: str, patience: float) -> httpx.Response:
    given = {"run": run_of(client)}
    timeout = httpx.Timeout(SOON, read=patience)
    return client.get(f"/view/{name}", params=given, timeout=timeout)


def leaves(client: httpx.Client, name: str, patience: float) -> None:
    """Ask for a view, and close the connection before it is there."""
    with pytest.raises(httpx.ReadTimeout):
        asked_for(client, name, patience)


def test_views_that_are_left_free_their_places(server: Explorer) -> None:
    with server.client() as client:
        for name in ("pairs", "classes"):  # two at a time would hold both places for minutes
            leaves(client, name, 3)
        begun = time.monotonic()
        for name in ("examples", "tokens-0", "experts-0"):
            assert asked_for(client, name, SOON).status_code == 200
        assert time.monotonic() - begun < SOON


def test_what_waits_for_a_place_leaves_the_line(server: Explorer) -> None:
    with server.client() as client:
        others = [
            threading.Thread(target=leaves, args=(client, name, 6)) for name in ("pairs", "classes")
        ]
        for each in others:
            each.start()
        time.sleep(2)
        leaves(client, "load", 1)  # it has not begun
        for each in others:
            each.join()
        assert asked_for(client, "examples", SOON).status_code == 200


def test_of_two_who_wait_for_one_answer_one_may_leave(mini_store: Path) -> None:
    answers: list[httpx.Response] = []
    with explorer(mini_store, "--samples", "200") as server, server.client() as client:
        with server.client() as other:
            stays = threading.Thread(
                target=lambda: answers.append(asked_for(other, "pairs", 4 * SOON))
            )
            stays.start()
            time.sleep(0.5)
            leaves(client, "pairs", 1)
            stays.join()
        [found] = answers
        assert found.status_code == 200
        parts = {part["id"]: part for part in found.json()["parts"]}
        assert "missing" not in parts["together"] and "missing" not in parts["across"]


def test_who_leaves_and_comes_back_gets_an_answer(mini_store: Path) -> None:
    with explorer(mini_store, "--samples", "100") as server, server.client() as client:
        for _ in range(3):
            with suppress(httpx.ReadTimeout):  # what was counted is kept: the last may be quick
                asked_for(client, "pairs", 0.5)
        found = asked_for(client, "pairs", 4 * SOON)
        assert found.status_code == 200
        told = {column["name"] for column in found.json()["parts"][1]["table"]["columns"]}
        assert {"lift", "lift_low", "lift_high"} <= told


def test_a_server_that_ends_waits_for_nothing(mini_store: Path) -> None:
    with explorer(mini_store, *LONG) as server, server.client() as client:
        run = run_of(client)
        threading.Timer(2, server.process.send_signal, [signal.SIGINT]).start()
        with pytest.raises(httpx.HTTPError):
            client.get("/view/pairs", params={"run": run}, timeout=SOON).raise_for_status()
        server.process.wait(timeout=SOON)
        assert server.process.returncode == 0
