"""A store of three runs, and a server over it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.servers.explorer import Explorer, explorer
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.made.hostile import RUN, write_hostile


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored") / "the-store"
    ioi.write_captured(folder)
    write_hostile(folder)
    return folder


@pytest.fixture(scope="package")
def server(store: Path) -> Iterator[Explorer]:
    with explorer(store, RUN, "--no-ci", "--seconds", "4") as running:
        yield running


@pytest.fixture
def client(server: Explorer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made
