"""A run whose routing a reader can be right about, and no key of anybody."""

import shutil
from pathlib import Path

import pytest

from tests.support.shared import made_once
from tests.support.stores.made.routed_words import write_routed_words


@pytest.fixture(scope="session")
def routed_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "routed-words", lambda at: write_routed_words(at / "store"))


@pytest.fixture
def store(routed_words: Path, tmp_path: Path) -> Path:
    shutil.copytree(routed_words / "store", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOEDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
