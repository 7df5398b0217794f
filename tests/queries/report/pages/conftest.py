"""The store that pages are made of: prompts with interventions, and runs with hostile names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.queries.analyses.test_ioi_analyses import make_settings
from tests.support.drawn.pages import chromium
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.made.hostile import write_hostile


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, what became of them under interventions, and the hostile runs."""
    folder = tmp_path_factory.mktemp("pages") / "store"
    prompts = ioi.write_captured(folder)
    kept = [each for each in make_settings(prompts) if each.params.get("form") != "remove"]
    splits = {p.example_id: p.split for p in prompts}
    ioi.write_interventions(folder, kept, splits, {e: e + 1 for e in splits if e % 9 % 2 == 0})
    write_hostile(folder)
    return folder


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, or skip where it is not there."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()
